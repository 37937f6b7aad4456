from __future__ import annotations

import doctest
import json
from typing import Any

import numpy as np
import pytest

from medusa_decoding.decoding import StepCost, cost

MEASURED = StepCost((1, 2, 4, 8), {256: (5.0, 5.2, 5.6, 9.6), 2256: (7.0, 7.2, 9.6, 15.6)}, {1: 0.5, 4: 0.8})


def test_doctests() -> None:
    results = doctest.testmod(cost)
    assert (results.attempted > 0, results.failed) == (True, 0)


@pytest.mark.parametrize(
    ("rows", "context", "milliseconds"),
    [
        (1, 256, 5.0),
        (3, 256, 5.4),
        (8, 2256, 15.6),
        (6, 256, 7.6),
        (4, 1256, 7.6),
        (3, 1256, 6.9),
        # Beyond what was measured, with the last slope; below the shortest context, as there.
        (10, 256, 11.6),
        (1, 4256, 9.0),
        (10, 2256, 18.6),
        (2, 0, 5.2),
    ],
)
def test_times_are_linear_between_and_beyond(rows: int, context: int, milliseconds: float) -> None:
    assert MEASURED.step(rows, context) == pytest.approx(milliseconds)


def test_many_numbers_of_rows_at_once() -> None:
    rows = np.arange(1, 12)
    assert MEASURED.steps(rows, 700).tolist() == [MEASURED.step(n, 700) for n in rows.tolist()]


def test_a_context_between_three_uses_its_neighbours() -> None:
    three = StepCost((1,), {256: (5.0,), 2048: (6.0,), 8192: (12.0,)}, {1: 0.0})
    assert [three.step(9, context) for context in (1152, 2048, 5120, 14336)] == [5.5, 6.0, 9.0, 18.0]


def test_noise_never_makes_time_end() -> None:
    noisy = StepCost((1, 2, 4), {256: (6.0, 8.0, 7.0), 512: (5.0, 6.0, 5.0)}, {1: 1.0, 2: 0.5})
    assert noisy.step(64, 256) == 7.0
    assert noisy.step(1, 100_000) == 5.0
    assert noisy.draft(50) == 0.5


def test_drafting_by_the_number_of_sequences() -> None:
    assert [MEASURED.draft(count) for count in (1, 2, 4, 6)] == pytest.approx([0.5, 0.6, 0.8, 1.0])
    assert StepCost((1,), {0: (1.0,)}, {1: 0.5}).draft(9) == 0.5


def test_json_and_back() -> None:
    assert StepCost.from_dict(json.loads(json.dumps(MEASURED.to_dict()))) == MEASURED


def changed(**fields: Any) -> dict[str, Any]:
    return {**MEASURED.to_dict(), **fields}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        changed(rows=[]),
        changed(rows=[2, 3, 4, 5]),
        changed(rows=[1, 4, 2, 8]),
        changed(rows=[1, 2, 4]),
        changed(rows=None),
        changed(contexts={}),
        changed(contexts=[]),
        changed(contexts={"256": [1, 2, 3, 0]}),
        changed(contexts={"256": [1, 2, 3, float("nan")]}),
        changed(contexts={"2256": [1, 2, 3, 4], "256": [1, 2, 3, 4]}),
        changed(contexts={"long": [1, 2, 3, 4]}),
        changed(drafting={}),
        changed(drafting={"1": -1}),
        changed(drafting={"2": 1}),
    ],
)
def test_what_cannot_be_a_cost_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"not the cost|rise from|each context|milliseconds|rise, but|invalid literal"
    ):
        StepCost.from_dict(broken)
