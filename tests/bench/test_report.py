from __future__ import annotations

import json
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


def test_a_table_of_typical_acceptance_says_that_it_is_not_lossless(report: dict[str, object]) -> None:
    assert "not lossless" not in str(table(report).title)
    assert "not lossless" in str(table({**report, "lossless": False}).title)
