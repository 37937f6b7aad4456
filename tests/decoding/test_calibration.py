from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.calibration import CalibratedDrafter, Calibration, Fit, calibrated
from medusa_decoding.decoding.protocols import Context, NoDrafter
from medusa_decoding.decoding.tree import FloatArray
from tests.decoding.toy import RandomDrafter

HEADS, RANKS = 3, 4


@st.composite
def guesses(draw: st.DrawFn) -> FloatArray:
    """(HEADS, RANKS) probabilities, likeliest first; a head's sum to 1 at most."""
    weights = draw(
        st.lists(
            st.lists(st.floats(0, 1), min_size=RANKS + 1, max_size=RANKS + 1),
            min_size=HEADS,
            max_size=HEADS,
        )
    )
    parts = np.array(weights) + 1e-12
    return -np.sort(-(parts / parts.sum(1, keepdims=True))[:, 1:], axis=1)


slopes_of = st.lists(st.floats(0.05, 5), min_size=HEADS, max_size=HEADS).map(np.array)
misses_of = st.lists(st.floats(-20, 20), min_size=HEADS, max_size=HEADS).map(np.array)


@given(guesses(), slopes_of, misses_of)
def test_guesses_keep_their_order_and_sum_to_one_at_most(
    said: FloatArray, slopes: FloatArray, misses: FloatArray
) -> None:
    found = calibrated(said, slopes, misses)
    assert (found >= 0).all()
    assert (found.sum(1) <= 1 + 1e-12).all()
    assert (np.diff(found, axis=1) <= 0).all()


@given(guesses(), slopes_of, misses_of)
def test_a_larger_miss_makes_every_guess_less_likely(
    said: FloatArray, slopes: FloatArray, misses: FloatArray
) -> None:
    assert (calibrated(said, slopes, misses + 1) <= calibrated(said, slopes, misses)).all()


@given(guesses())
def test_slope_one_and_miss_zero_change_nothing(said: FloatArray) -> None:
    np.testing.assert_allclose(calibrated(said, np.ones(HEADS), np.zeros(HEADS)), said, rtol=2e-6)


def test_each_temperature_has_its_own_map_and_others_lie_between() -> None:
    calibration = Calibration([Fit(0.0, (1.0,), (0.0,)), Fit(1.0, (0.5,), (2.0,))])
    said = np.array([[0.6, 0.2]])
    for temperature, slope, miss in ((0.0, 1.0, 0.0), (0.5, 0.75, 1.0), (1.0, 0.5, 2.0), (3.0, 0.5, 2.0)):
        expected = calibrated(said, np.array([slope]), np.array([miss]))
        np.testing.assert_array_equal(calibration.apply(said, temperature), expected)


def test_a_drafter_is_calibrated_for_each_sequence() -> None:
    calibration = Calibration([Fit(0.0, (1.0,) * 3, (0.0,) * 3), Fit(1.0, (1.0,) * 3, (3.0,) * 3)])
    raw = RandomDrafter(3, 4, 20, seed=1)
    contexts = [Context([1], None), Context([1], None, temperature=1.0)]
    plain = RandomDrafter(3, 4, 20, seed=1).propose(contexts)
    greedy, sampled = CalibratedDrafter(raw, calibration).propose(contexts)
    np.testing.assert_array_equal(greedy.tokens, plain[0].tokens)
    np.testing.assert_allclose(greedy.probabilities, plain[0].probabilities)
    np.testing.assert_array_equal(sampled.tokens, plain[1].tokens)
    assert (sampled.probabilities < plain[1].probabilities).all()
    assert len(best_first(0, sampled, 6)) == 6


def test_heads_that_propose_less_than_was_fitted_are_calibrated_too() -> None:
    calibration = Calibration([Fit(0.0, (1.0, 1.0), (0.0, 5.0))])
    assert calibration.apply(np.array([[0.5]]), 0.0) == pytest.approx(0.5)


def test_nothing_proposed_stays_nothing() -> None:
    calibration = Calibration([Fit(0.0, (1.0,), (0.0,))])
    (found,) = CalibratedDrafter(NoDrafter(), calibration).propose([Context([1], None)])
    assert found.depth == 0
