from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding.hit_rates import FIRST, LENGTHS, SECOND, STREAKS, HitRates
from medusa_decoding.decoding.suffix_index import LONGEST, Match

ALL = [
    Match(99, length, streak, other)
    for length, streak, other in product(range(1, LONGEST + 1), range(1, 7), (-1, 50))
]
matches = st.sampled_from(ALL)


def test_a_run_begins_with_what_was_measured() -> None:
    rates = HitRates()
    assert rates.first(Match(9, 1, 1, -1)) == pytest.approx(FIRST[0][0])
    assert rates.first(Match(9, 5, 2, -1)) == pytest.approx(FIRST[4][1])
    assert rates.first(Match(9, 32, 9, 3)) == pytest.approx(FIRST[9][7])
    assert rates.second(Match(9, 4, 2, 3)) == pytest.approx(SECOND[1])
    assert rates.second(Match(9, 4, 2, -1)) == 0


def test_every_match_has_a_class() -> None:
    assert np.array(FIRST).shape == (len(LENGTHS) + 1, 2 * STREAKS)
    table = np.array(FIRST)
    # Longer matches and longer streaks are better.
    assert (np.diff(table[:, :STREAKS], axis=0) >= 0).all()
    assert (np.diff(table[:, :STREAKS], axis=1) >= 0).all()
    assert len({HitRates().first(match) for match in ALL}) > 30


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(matches, st.sampled_from([(True, False), (False, True), (False, False)]))), matches)
def test_probabilities_stay_probabilities(seen: list[tuple[Match, tuple[bool, bool]]], match: Match) -> None:
    rates = HitRates()
    for one, (first, second) in seen:
        rates.observe(one, first, second and one.other >= 0)
    assert 0 < rates.first(match) < 1
    assert 0 <= rates.second(match) <= 1 - rates.first(match) + 1e-12


def test_what_is_never_right_is_soon_not_believed_anywhere() -> None:
    rates = HitRates()
    for _ in range(60):
        rates.observe(Match(9, 2, 1, -1), first=False, second=False)
    assert rates.first(Match(9, 2, 1, -1)) < 0.2
    # Another class, which was not seen, falls with it, though less.
    assert rates.first(Match(9, 2, 1, -1)) < rates.first(Match(9, 3, 1, -1)) < FIRST[2][0] / 2
    for _ in range(200):
        rates.observe(Match(9, 2, 1, -1), first=True, second=False)
    assert rates.first(Match(9, 2, 1, -1)) > 0.8


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_run_learns_its_own_rates(scale: float) -> None:
    """Of hits that come `scale` times as often as measured beforehand, as in sampled text."""
    kinds = [Match(9, 1, 1, -1), Match(9, 3, 2, 5), Match(9, 8, 1, -1), Match(9, 32, 4, -1)]
    random, rates = np.random.default_rng(3), HitRates()
    believed, hits = [], []
    for step in range(4000):
        match = kinds[int(random.integers(len(kinds)))]
        right = random.random() < scale * HitRates().first(match)
        if step >= 1000:
            believed.append(rates.first(match))
            hits.append(right)
        rates.observe(match, bool(right), second=False)
    assert np.mean(believed) == pytest.approx(np.mean(hits), abs=0.04)
    sure = np.array(believed) > np.median(believed)
    assert np.mean(np.array(believed)[sure]) == pytest.approx(np.mean(np.array(hits)[sure]), abs=0.08)
