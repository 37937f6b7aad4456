from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from medusa_decoding.bench.peers.against import Measured
from medusa_decoding.bench.peers.race import Runner
from medusa_decoding.bench.peers.report import build_result
from medusa_decoding.bench.peers.result import (
    AgainstResult,
    Prompt,
    PromptRun,
    SkippedPeer,
    SkippedPrompt,
    Text,
)
from medusa_decoding.bench.peers.side import About, Written
from medusa_decoding.bench.peers.side import Prompt as Asked
from medusa_decoding.bench.peers.tables import left_out, markdown, terminal_table
from medusa_decoding.generation import Medusa


class Named:
    """A side that has written all that it will."""

    def __init__(self, name: str, weights: str = "int8") -> None:
        self.about = About(name, name.split(" ")[0], f"{name}, as a test", weights, weights)

    def write(self, prompt: Asked, tokens: int) -> Written:
        raise AssertionError

    def log_likelihood(self, tokens: Sequence[int]) -> None: ...

    def close(self) -> None: ...


def runner(name: str, weights: str, rates: dict[int, float], failure: str | None = None) -> Runner:
    runs = [
        PromptRun(prompt=place, tokens=10, seconds=10 / rate, prefill_seconds=0.5, identical=place != 1)
        for place, rate in rates.items()
    ]
    return Runner(Named(name, weights), 4, runs, tokens=10 * len(runs), steps=5 * len(runs), failure=failure)


@pytest.fixture
def result(tiny_medusa: Medusa) -> AgainstResult:
    categories = ("qa", "maths", "qa", "maths")
    measured = Measured(
        Text(name="quality.txt", sha256="0" * 64, tokens=99),
        [
            Prompt(question_id=place, category=name, prompt_tokens=20, tokens=11)
            for place, name in enumerate(categories)
        ],
        [SkippedPrompt(question_id=9, reason="too long")],
        [
            runner("medusa", "int8", {0: 100.0, 1: 200.0, 2: 300.0, 3: 400.0}),
            runner("llama.cpp Q4_0", "Q4_0", {0: 50.0, 1: 50.0, 2: 50.0, 3: 50.0}),
            runner("transformers", "fp32", {0: 10.0, 1: 10.0}, "prompt 3: no memory"),
            runner("lookup", "int8", {}, "prompt 1: it crashed"),
        ],
        {"int8": 15.1, "fp32": 15.0},
    )
    measured.opened.skipped.append(
        SkippedPeer(peer="llama.cpp-lookup", reason="not installed", install="pip install it")
    )
    return build_result(
        tiny_medusa,
        measured,
        command="medusa bench",
        suite=Path("a/suite.jsonl"),
        settings={"max_tokens": 11},
        threads=2,
    )


def test_ratios_are_medians_over_common_prompts(result: AgainstResult) -> None:
    medusa, llama, slow = result.sides
    assert medusa.ratio is None and medusa.tokens_per_second.median == 250.0
    assert llama.ratio is not None and llama.ratio.median == 5.0 and llama.ratio.prompts == 4
    # 100 / 10 and 200 / 10: not 250 / 10.
    assert slow.ratio is not None and slow.ratio.median == 15.0 and slow.ratio.prompts == 2
    assert (slow.ratio.low, slow.ratio.high) == (10.0, 20.0)
    assert medusa.prefill_tokens_per_second.median == 40.0
    assert (medusa.acceleration_rate, medusa.identical) == (2.0, 3)


def test_categories_stand_alone(result: AgainstResult) -> None:
    llama, slow = result.side("llama.cpp Q4_0"), result.side("transformers")
    assert list(llama.categories) == ["qa", "maths"]
    maths = llama.categories["maths"]
    assert maths.ratio is not None and maths.ratio.median == 6.0
    assert maths.tokens_per_second.median == 50.0
    assert slow.categories["maths"].ratio is not None and slow.categories["maths"].ratio.prompts == 1


def test_quality_stands_beside_speed(result: AgainstResult) -> None:
    assert [side.perplexity for side in result.sides] == [15.1, None, 15.0]


def test_what_was_left_out_is_told(result: AgainstResult) -> None:
    assert left_out(result) == [
        "llama.cpp-lookup was skipped: not installed; install it: pip install it",
        "lookup was skipped: prompt 1: it crashed",
        "transformers stopped at prompt 3: no memory",
    ]
    with pytest.raises(KeyError):
        result.side("lookup")


def test_it_is_read_back_from_json(result: AgainstResult) -> None:
    written = json.loads(json.dumps(result.model_dump(mode="json")))
    assert (written["kind"], written["version"]) == ("against", 1)
    assert written["machine"]["cpu"] and written["machine"]["medusa_decoding"]
    assert AgainstResult.model_validate(written) == result
    with pytest.raises(ValidationError):
        AgainstResult.model_validate({**written, "version": 2})


def test_markdown_has_a_table_of_sides_and_one_of_categories(result: AgainstResult) -> None:
    lines = markdown(result).splitlines()
    assert "| medusa | int8 | 15.10 | 250.0 (100.0–400.0) |  | 4 |" in lines
    assert "| transformers | fp32 | 15.00 | 10.0 (10.0–10.0) | 15.00 × (10.00–20.00) | 2 |" in lines
    assert "| medusa is | llama.cpp Q4_0 | transformers |" in lines
    assert "| maths | 6.00 × (4.00–8.00) | 20.00 × (20.00–20.00) |" in lines
    assert all(line.count("|") in (0, 4, 7) for line in lines)
    assert "lookup was skipped: prompt 1: it crashed." in lines


def test_the_terminals_table_fits_eighty_columns(result: AgainstResult) -> None:
    renamed = result.model_copy(
        update={
            "sides": [
                *result.sides,
                result.sides[2].model_copy(update={"name": "transformers-prompt-lookup"}),
            ]
        }
    )
    console = Console(file=StringIO(), width=80)
    console.print(terminal_table(renamed))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "transformers-prompt-lookup" in shown and "(100.0–400.0)" in shown and "…" not in shown


def test_a_machine_that_slows_down_widens_speeds_and_not_ratios(tiny_medusa: Medusa) -> None:
    record = [Prompt(question_id=place, category="qa", prompt_tokens=20, tokens=11) for place in range(2)]
    sides = [runner("medusa", "int8", {0: 100.0, 1: 100.0}), runner("lookup", "int8", {0: 50.0, 1: 50.0})]
    for side in sides:
        side.repeats = [run.model_copy(update={"seconds": 1.25 * run.seconds}) for run in side.runs]
    measured = Measured(Text(name="a", sha256="0" * 64, tokens=9), record, [], sides, {})
    found = build_result(
        tiny_medusa, measured, command="", suite=Path("a"), settings={"max_tokens": 16}, threads=1
    )
    speed, ratio = found.side("lookup").tokens_per_second, found.side("lookup").ratio
    assert (speed.low, speed.median, speed.high) == pytest.approx((40.0, 50.0, 62.5))
    assert ratio is not None and (ratio.low, ratio.median, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert [run.prompt for run in found.side("lookup").repeats] == [0, 1]
