"""Draw docs/pictures/*.svg and docs/pictures.md anew from benchmarks/ and the packaged heads' results.

Run it without arguments, or with a folder to put them into instead of docs/. Pictures of results that are no
longer there are removed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medusa_decoding.plots.picture import Picture
from medusa_decoding.plots.write import ALL_THEMES, page, pictures_of, write_page, write_pictures

ROOT = Path(__file__).parent.parent
SHOWN = (
    "benchmarks/smollm2-heads-and-lookup.json",
    "benchmarks/*-drafters.json",
    "benchmarks/*-profile*.json",
    "benchmarks/*-number-of-heads.json",
    "benchmarks/*-tree-size.json",
    "src/medusa_decoding/assets/smollm2/tuning.json",
    "src/medusa_decoding/assets/qwen-coder/tuning.json",
    "benchmarks/*-decode.json",
)
"""What is shown, beside the comparisons with other programs; a pattern may match nothing."""
TITLE = "Pictures of the results"
BEFORE = """
`medusa plot` (`pip install 'medusa-decoding[plot]'`) draws what other commands wrote, each file by what it
holds, in a light theme, which prints well, and in a dark one:

```bash
medusa bench smollm2 --suite questions.jsonl --json result.json
medusa generate smollm2 -p "Why is the sky blue?" --trace decode.json
medusa plot result.json decode.json --out pictures
```

Those below are of the files in [`benchmarks/`](../benchmarks/README.md) and beside the packaged heads. `make
pictures` draws them anew, and a test holds them to the files.
"""


def results() -> list[Path]:
    """The files, in a fixed order."""
    against = sorted((ROOT / "benchmarks").glob("*-against.json"))
    return [*against, *(path for pattern in SHOWN for path in sorted(ROOT.glob(pattern)))]


def pictures() -> list[Picture]:
    """Of all of them."""
    return pictures_of(results())


def text(drawn: list[Picture]) -> str:
    """docs/pictures.md."""
    title, below = page(drawn, ALL_THEMES, "svg", "pictures/", TITLE).split("\n", 1)
    return f"{title}\n{BEFORE}{below}"


def main(docs: Path) -> None:
    """Draw and write."""
    drawn = pictures()
    folder = docs / "pictures"
    write_pictures(drawn, folder, formats=("svg",))
    wanted = {f"{picture.name}-{theme}.svg" for picture in drawn for theme in ALL_THEMES}
    for path in folder.glob("*.svg"):
        if path.name not in wanted:
            path.unlink()
    write_page(docs / "pictures.md", text(drawn))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
