from __future__ import annotations

import doctest
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import StepCost
from medusa_decoding.tuning import Profile, profile
from medusa_decoding.tuning.profile import rising

NOISY = StepCost((1, 2, 4), {256: (5.0, 5.5, 5.25), 2048: (6.0, 5.0, 7.0)}, {1: 0.5})
FOUND = Profile(NOISY, True, 135_000_000, 25.0, 0.1, False)


def test_doctests() -> None:
    results = doctest.testmod(profile)
    assert (results.attempted > 0, results.failed) == (True, 0)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20))
def test_levelled_times_rise_and_keep_their_sum(times: list[float]) -> None:
    found = rising(times)
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(found))
    assert sum(found) == pytest.approx(sum(times))
    assert found == pytest.approx(times) or sorted(times) != times
    assert rising(sorted(times)) == sorted(times)


def test_a_planner_sees_no_noise() -> None:
    assert FOUND.cost.contexts == {256: (5.0, 5.375, 5.375), 2048: (5.5, 5.5, 7.0)}
    assert FOUND.cost.drafting == NOISY.drafting
    falling = Profile(StepCost((1,), {256: (6.0,), 2048: (5.0,)}, {1: 0.0}), False, None, None, 0.0, True)
    assert falling.cost.contexts == {256: (6.0,), 2048: (6.0,)}


def test_the_report_is_what_was_measured() -> None:
    report = FOUND.report()
    assert report == {
        "rows": [1, 2, 4],
        "milliseconds": [5.0, 5.5, 5.25],
        "contexts": {"256": [5.0, 5.5, 5.25], "2048": [6.0, 5.0, 7.0]},
        "draft_milliseconds": 0.5,
        "weight_bytes": 135_000_000,
        "read_bandwidth_gb_s": 25.0,
        "bandwidth_bound_ms": pytest.approx(5.4),
    }
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(("size", "bandwidth"), [(None, 25.0), (10, None), (10, 0.0)])
def test_no_bound_without_both_figures(size: int | None, bandwidth: float | None) -> None:
    assert Profile(NOISY, False, size, bandwidth, 0.0, True).bandwidth_bound_ms is None


def test_json_and_back() -> None:
    assert Profile.from_dict(json.loads(json.dumps(FOUND.to_dict()))) == FOUND


@pytest.mark.parametrize("broken", [{}, {"measured": None}, {**FOUND.to_dict(), "more": 1}, {"measured": {}}])
def test_what_cannot_be_a_profile_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a profile|not the cost"):
        Profile.from_dict(broken)
