"""Write the tables of results in README.md and docs/ anew, from the files in benchmarks/.

    python tools/result_tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- /table -->`; NAME is one of `TABLES`. With --check
nothing is written, and the exit status is 1 where a page does not say what the files say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medusa_decoding.bench.peers.result import AgainstResult, Estimate, SideResult

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
MODELS = {"smollm2": "SmolLM2-135M", "qwen2.5-coder-0.5b": "Qwen2.5-Coder-0.5B"}
PLACE = re.compile(r"(?P<begin><!-- table: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- /table -->)", re.DOTALL)
SUITES = {"spec_bench_dev.jsonl": "Spec-Bench", "humaneval_dev.jsonl": "HumanEval"}


def against() -> str:
    """This project beside other programs, both models."""
    found = [_against(model) for model in MODELS]
    names = list(dict.fromkeys(side.name for one in found for side in one.sides))
    head = [""]
    for title, one in zip(MODELS.values(), found, strict=True):
        suite = SUITES[Path(one.suite["file"]).name]
        head += [f"{title}, {len(one.prompts)} prompts of {suite}: tokens/s", "medusa is", "perplexity"]
    return _table(head, [[f"`{name}`", *_cells(found, name)] for name in names])


def guesses() -> str:
    """Guesses beside plain decoding on the same engine."""
    rows = []
    for model, title in MODELS.items():
        for kind, name in (
            ("heads", "heads"),
            ("heads-16-rows", "heads, trees of 16 rows"),
            ("heads-and-lookup", "heads and lookup"),
            ("heads-temperature-0.7", "heads, temperature 0.7"),
        ):
            path = BENCHMARKS / f"{model}-{kind}.json"
            if path.is_file():
                rows.append([title, name, *_guesses(json.loads(path.read_text(encoding="utf-8")))])
    return _table(["", "", "tokens per step", "speedup", "without loops", "identical texts"], rows)


def server() -> str:
    """The server under load, with guesses and without."""
    runs = json.loads((BENCHMARKS / "smollm2-server.json").read_text(encoding="utf-8"))["runs"]
    rows = []
    for run in runs:
        plain, medusa = run["variants"]["plain"], run["variants"]["medusa"]
        speeds = [f"{one['tokens_per_second']:.0f}" for one in (plain, medusa)]
        first = "/".join(f"{medusa['ttft'][part]:.0f}" for part in ("p50", "p95"))
        each = "/".join(f"{medusa['tpot'][part]:.1f}" for part in ("p50", "p95"))
        same = f"{run['identical']['texts']} of {run['identical']['of']}"
        rows.append([str(run["concurrency"]), *speeds, f"{run['ratio']:.2f}", first, each, same])
    return _table(
        ["load", "plain, tokens/s", "with guesses", "ratio", "TTFT, ms", "TPOT, ms", "identical texts"], rows
    )


TABLES: dict[str, Callable[[], str]] = {"against": against, "guesses": guesses, "server": server}


def pages() -> Iterator[Path]:
    """Every page that may have tables."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def written_anew(text: str) -> str:
    """A page with its tables made anew."""
    return PLACE.sub(lambda place: place["begin"] + TABLES[place["name"]]() + place["end"], text)


def main(arguments: Sequence[str]) -> int:
    """Write or check; 1 where a page is stale."""
    stale = False
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = written_anew(before)
        if before == after:
            continue
        stale = True
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)}: run python tools/result_tables.py")
        else:
            path.write_text(after, encoding="utf-8")
    return int(stale and "--check" in arguments)


def _against(model: str) -> AgainstResult:
    text = (BENCHMARKS / f"{model}-against.json").read_text(encoding="utf-8")
    return AgainstResult.model_validate_json(text)


def _cells(found: Sequence[AgainstResult], name: str) -> Iterator[str]:
    for one in found:
        side = next((side for side in one.sides if side.name == name), None)
        if side is None:
            yield from ("", "", "")
            continue
        yield _interval(side.tokens_per_second, 0) + _fewer(one, side)
        yield "" if side.ratio is None else f"**{_interval(side.ratio, 2, ' ×')}**"
        yield "" if side.perplexity is None else f"{side.perplexity:.2f}"


def _fewer(result: AgainstResult, side: SideResult) -> str:
    count = side.tokens_per_second.prompts
    return "" if count == len(result.prompts) else f", {count} prompts"


def _interval(one: Estimate, digits: int, unit: str = "") -> str:
    return f"{one.median:.{digits}f}{unit} ({one.low:.{digits}f}–{one.high:.{digits}f})"


def _guesses(report: dict[str, Any]) -> list[str]:
    medusa, without = report["variants"]["medusa"], report["without_loops"]
    same = medusa["identical"]
    return [
        f"{medusa['acceleration_rate']:.2f}",
        f"{medusa['speedup']:.2f} ×",
        f"{without['acceleration_rate']:.2f}, {without['speedup']:.2f} ×" if without else "",
        f"{same['texts']} of {same['of']}",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
