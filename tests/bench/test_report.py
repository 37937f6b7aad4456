from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from medusa_decoding.bench.compare import Difference
from medusa_decoding.bench.report import Totals, build_report, ratio, table
from medusa_decoding.bench.run import Comparison, Mark, Run, Skipped
from medusa_decoding.bench.suite import Question
from medusa_decoding.decoding import LOOKUP
from medusa_decoding.generation import GenerationOptions, Medusa

MATHS = Question(question_id=7, category="maths", turns=("1+1?",))
QA = Question(question_id=8, category="qa", turns=("Why?",))


def plain_run(tokens: int) -> Run:
    """One token per step, half a second each."""
    marks = [Mark(step, step, 0.5 * step) for step in range(1, tokens)]
    return Run("t" * tokens, list(range(tokens)), [0] * tokens, marks, 4, 1.0)


def medusa_run(tokens: int) -> Run:
    """Two tokens per step, the first of them guessed by head 1, in the last step looked up; 0.8 seconds and
    16 rows each.
    """
    steps = tokens // 2
    marks = [Mark(2 * step, 16 * step, 0.8 * step) for step in range(1, steps + 1)]
    sources = [0, *[1, 0] * (steps - 1), LOOKUP, 0]
    return Run("t" * tokens, list(range(tokens)), sources, marks, 4, 1.5)


SAME = Comparison(MATHS, 0, plain_run(9), medusa_run(9), None)
OTHER = Comparison(QA, 0, plain_run(5), medusa_run(9), Difference(3, (65, 66), (0.5, 0.49)))


@pytest.fixture
def report(tiny_medusa: Medusa) -> dict[str, object]:
    return build_report(
        tiny_medusa,
        Path("some/suite.jsonl"),
        [MATHS, QA],
        GenerationOptions(max_tokens=9),
        {"tree": "auto"},
        [SAME, OTHER],
        [Skipped(QA, 1, "too long")],
    )


def test_totals_count_the_same_tokens_for_both() -> None:
    totals = Totals.of([SAME, OTHER])
    assert totals.plain.tokens == totals.medusa.tokens == 8 + 4
    assert (totals.plain.steps, totals.medusa.steps) == (12, 6)
    assert totals.acceleration_rate == pytest.approx(2.0)
    assert totals.overhead == pytest.approx(1.6)
    assert totals.speedup == pytest.approx(2.0 / 1.6)
    assert (totals.identical, totals.turns) == (1, 2)


def test_speedup_is_acceleration_over_overhead() -> None:
    totals = Totals.of([OTHER])
    assert totals.acceleration_rate is not None and totals.overhead is not None
    assert totals.speedup == pytest.approx(totals.acceleration_rate / totals.overhead)


def test_nothing_measured_gives_no_rates() -> None:
    assert Totals.of([]).speedup is None
    assert ratio(1, 0) is None
    assert ratio(None, 2) is None


def test_the_report_is_json_of_the_agreed_form(report: dict[str, object]) -> None:
    read = json.loads(json.dumps(report))
    assert read["variants"]["autoregressive"] == {
        "tokens": 12,
        "seconds": 6.0,
        "tokens_per_second": 2.0,
        "steps": 12,
        "prefill": {"tokens": 8, "seconds": 2.0},
    }
    medusa = read["variants"]["medusa"]
    assert (medusa["tokens"], medusa["acceleration_rate"], medusa["overhead"], medusa["speedup"]) == (
        12,
        2.0,
        1.6,
        1.25,
    )
    assert medusa["identical"] == {"texts": 1, "of": 2, "fraction": 0.5}
    assert medusa["head_acceptance"] == [0.8333, 0.0]
    assert medusa["tokens_from"] == {"base_model": 6, "heads": 5, "lookup": 1}
    assert read["categories"]["maths"]["tokens_from"] == {"base_model": 4, "heads": 3, "lookup": 1}
    assert read["categories"]["qa"]["tokens_from"] == {"base_model": 2, "heads": 2, "lookup": 0}
    assert medusa["rows_per_step"] == 16
    assert medusa["prefill"] == {"tokens": 8, "seconds": 3.0}
    assert read["categories"]["maths"]["speedup"] == 1.25
    assert list(read["categories"]) == ["maths", "qa"]
    assert read["suite"] == {"file": "suite.jsonl", "questions": 2, "turns": 2, "categories": ["maths", "qa"]}
    assert read["settings"]["max_tokens"] == 9
    assert read["settings"]["tree"] == "auto"
    assert read["engine"]["dtype"] == "float64"
    assert read["heads"]["num_heads"] == 2
    assert read["drafting"].endswith("heads and prompt lookup")
    assert read["lossless"] is True
    assert read["machine"]["cores"] >= 1
    assert read["skipped"] == [{"question_id": 8, "turn": 1, "reason": "too long"}]


def test_a_difference_is_reported_with_both_tokens(report: dict[str, object], tiny_medusa: Medusa) -> None:
    [found] = json.loads(json.dumps(report))["differences"]
    assert (found["question_id"], found["turn"], found["token_index"]) == (8, 0, 3)
    assert found["tokens"]["medusa"] == {"id": 66, "text": tiny_medusa.tokenizer.decode([66])}
    assert found["probabilities"] == {"autoregressive": 0.5, "medusa": 0.49}
    assert found["gap"] == pytest.approx(0.01)


def test_the_table_has_a_line_per_category_and_one_for_all(report: dict[str, object]) -> None:
    console = Console(width=120, file=StringIO(), record=True)
    console.print(table(report))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["maths", "1", "8", "38+12", "%", "2.00", "1.25", "1/1"] in lines
    assert ["all", "2", "12", "42+8", "%", "2.00", "1.25", "1/2"] in lines


# 19 tokens after the prefill, two per step: the plain text says the same token over and over.
LOOP = Comparison(QA, 0, replace(plain_run(20), tokens=[7] * 20), medusa_run(20), None)


@pytest.fixture
def looping(tiny_medusa: Medusa) -> dict[str, object]:
    """QA has a loop among two texts, maths none."""
    options = GenerationOptions(max_tokens=20)
    return build_report(tiny_medusa, Path("s.jsonl"), [MATHS, QA], options, {}, [SAME, OTHER, LOOP], [])


def test_figures_without_loops_are_those_of_a_suite_without_them(
    looping: dict[str, object], report: dict[str, object]
) -> None:
    found, clean = json.loads(json.dumps(looping)), json.loads(json.dumps(report))
    assert found["variants"]["medusa"]["tokens"] == 8 + 4 + 19
    assert found["variants"]["medusa"]["acceleration_rate"] != 2.0
    without = found["without_loops"]
    assert (without["left_out"], without["turns"], without["tokens"]) == (1, 2, 12)
    for name in ("acceleration_rate", "overhead", "speedup", "identical", "tokens_from"):
        assert without[name] == clean["variants"]["medusa"][name]
    maths, qa = (found["categories"][name] for name in ("maths", "qa"))
    assert maths["without_loops"] == {"left_out": 0, **{k: v for k, v in maths.items() if k in without}}
    assert qa["without_loops"]["left_out"] == 1
    assert qa["without_loops"]["tokens"] == clean["categories"]["qa"]["tokens"] == 4
    assert clean["without_loops"]["left_out"] == 0


def test_it_is_the_plain_text_that_makes_a_loop() -> None:
    assert LOOP.loops
    assert not replace(LOOP, plain=plain_run(20), medusa=replace(medusa_run(20), tokens=[7] * 20)).loops


def test_the_table_has_a_line_without_loops_only_where_there_are_some(
    looping: dict[str, object], report: dict[str, object]
) -> None:
    console = Console(width=120, file=StringIO(), record=True)
    console.print(table(looping))
    text = console.export_text()
    lines = [line.split() for line in text.splitlines()]
    places = [place for place, line in enumerate(lines) if line[:2] == ["no", "loops"]]
    assert [lines[place - 1][0] for place in places] == ["qa", "all"]
    assert lines[places[0]] == ["no", "loops", "1", "4", "50+0", "%", "2.00", "1.25", "0/1"]
    assert lines[places[1]] == ["no", "loops", "2", "12", "42+8", "%", "2.00", "1.25", "1/2"]
    console.print(table(report))
    assert "loop" not in console.export_text()


def test_a_suite_of_loops_alone_leaves_no_figures(tiny_medusa: Medusa) -> None:
    options = GenerationOptions(max_tokens=20)
    found = build_report(tiny_medusa, Path("s.jsonl"), [QA], options, {}, [LOOP, LOOP], [])
    assert found["without_loops"]["acceleration_rate"] is found["without_loops"]["speedup"] is None
    console = Console(width=120, file=StringIO(), record=True)
    console.print(table(found))
    assert "no loops" in console.export_text()


def test_a_table_of_typical_acceptance_says_that_it_is_not_lossless(report: dict[str, object]) -> None:
    assert "not lossless" not in str(table(report).title)
    assert "not lossless" in str(table({**report, "lossless": False}).title)
