from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest

from medusa_decoding.plots.theme import DARK, LIGHT
from medusa_decoding.plots.write import page, pictures_of, write_pictures
from tests.plots import made

ROOT = Path(__file__).parents[2]


def luminance(colour: str) -> float:
    """Relative, as WCAG 2 has it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Of two colours, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_colours_can_be_read(theme: type[LIGHT]) -> None:
    for ground in (theme.background, theme.plain, *theme.fills):
        assert contrast(theme.text, ground) > 4.5, ground
    assert contrast(theme.muted, theme.background) > 4.5
    for line in theme.series:
        assert contrast(line, theme.background) > 3.0, line


@pytest.mark.parametrize("name", made.ALL)
def test_the_same_result_gives_the_same_bytes_whatever_the_users_settings(name: str, tmp_path: Path) -> None:
    pictures = pictures_of([made.written(tmp_path, "result", made.ALL[name]())])
    write_pictures(pictures, tmp_path / "one", ("dark",))
    with matplotlib.rc_context(
        {"font.size": 20, "lines.linewidth": 9, "axes.grid": False, "svg.hashsalt": None}
    ):
        write_pictures(pictures, tmp_path / "two", ("dark",))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{one.name}-dark.{form}" for one in pictures for form in ("svg", "png"))
    for file in files:
        content = (tmp_path / "one" / file).read_bytes()
        assert content == (tmp_path / "two" / file).read_bytes(), file
        assert b"<dc:date>" not in content


def test_a_page_shows_each_picture_with_its_caption(tmp_path: Path) -> None:
    [picture] = pictures_of([made.written(tmp_path, "a<b", made.bench())])
    text = page([picture], ("light", "dark"), "svg", "pictures/")
    assert 'srcset="pictures/a<b-by-category-dark.svg"' in text
    assert 'src="pictures/a<b-by-category-light.svg"' in text
    assert picture.caption in text
    assert "<picture>" not in page([picture], ("dark",), "png")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/draw_pictures.py."""
    spec = spec_from_file_location("draw_pictures", ROOT / "tools" / "draw_pictures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documentations_pictures_are_what_the_results_say(tool: ModuleType, tmp_path: Path) -> None:
    tool.main(tmp_path)
    mend = "run 'make pictures'"
    assert (ROOT / "docs" / "pictures.md").read_text() == (tmp_path / "pictures.md").read_text(), mend
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / "docs" / "pictures").iterdir()}
    assert drawn.keys() == kept.keys(), mend
    assert max(map(len, kept.values())) < 150_000
    # Captions hold figures too; shapes of letters are another version's own.
    if f"matplotlib=={matplotlib.__version__}\n" in (ROOT / "constraints.txt").read_text():
        assert [name for name in drawn if drawn[name] != kept[name]] == [], mend
    else:
        assert {name: described(one) for name, one in drawn.items()} == {
            name: described(one) for name, one in kept.items()
        }, mend


def described(picture: bytes) -> list[bytes]:
    """The caption in an SVG file."""
    return re.findall(rb"<dc:description>(.*?)</dc:description>", picture, re.DOTALL)
