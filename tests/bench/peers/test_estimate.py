from __future__ import annotations

from itertools import product
from math import log
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.bench.peers.estimate import OUTSIDE, drift, estimate, ratios

RATES = st.floats(0.5, 500)


def drawn_medians(values: list[float]) -> list[float]:
    """Of all draws with replacement, each as likely as the others."""
    return [median(draw) for draw in product(values, repeat=len(values))]


@given(st.lists(RATES, min_size=1, max_size=5))
@settings(deadline=None, max_examples=40)
def test_the_interval_is_that_of_all_draws(values: list[float]) -> None:
    found, medians = estimate(values), drawn_medians(values)
    assert found.median == pytest.approx(median(values))
    assert found.prompts == len(values)
    # 10,000 draws know a share of 2.5 % to within 0.6 % (nearly four standard deviations).
    slack, edge = 0.006, 1e-9 * max(values)
    for outside, at_least in (
        (sum(one < found.low - edge for one in medians), sum(one <= found.low + edge for one in medians)),
        (sum(one > found.high + edge for one in medians), sum(one >= found.high - edge for one in medians)),
    ):
        assert outside / len(medians) <= OUTSIDE / 2 + slack
        assert at_least / len(medians) >= OUTSIDE / 2 - slack


@given(st.lists(RATES, min_size=1, max_size=12), st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_an_estimate_scales_and_forgets_the_order(values: list[float], factor: float) -> None:
    found, scaled = estimate(values), estimate([factor * value for value in values])
    assert found.low <= found.median <= found.high
    assert min(values) <= found.low and found.high <= max(values)
    assert (scaled.low, scaled.median, scaled.high) == pytest.approx(
        tuple(factor * each for each in (found.low, found.median, found.high))
    )
    assert estimate(values) == found


def test_more_prompts_narrow_the_interval() -> None:
    few, many = estimate([1.0, 2.0, 3.0, 4.0]), estimate([1.0, 2.0, 3.0, 4.0] * 20)
    assert many.high - many.low < few.high - few.low
    alone = estimate([3.0])
    assert (alone.low, alone.median, alone.high) == (3.0, 3.0, 3.0)


@given(st.dictionaries(st.integers(0, 9), RATES), st.dictionaries(st.integers(0, 9), RATES))
def test_ratios_are_of_the_prompts_that_both_have(ours: dict[int, float], theirs: dict[int, float]) -> None:
    expected = [ours[place] / theirs[place] for place in range(10) if place in ours and place in theirs]
    assert sorted(ratios(ours, theirs).values()) == pytest.approx(sorted(expected))


def test_what_moved_meanwhile_widens_the_interval() -> None:
    first = {0: 100.0, 1: 200.0, 2: 300.0}
    assert drift(first, {}) == drift(first, dict(first)) == 0.0
    faster, slower = drift(first, {0: 120.0, 1: 240.0}), drift(first, {0: 100 / 1.2, 1: 200 / 1.2})
    assert faster == pytest.approx(slower) == pytest.approx(log(1.2))
    still, moved = estimate(list(first.values())), estimate(list(first.values()), faster)
    assert (moved.low, moved.median, moved.high) == pytest.approx(
        (still.low / 1.2, still.median, 1.2 * still.high)
    )
