from __future__ import annotations

import itertools

import numpy as np
import pytest

from medusa_decoding.decoding.calibration import Fit, calibrated
from medusa_decoding.decoding.tree import FloatArray
from medusa_decoding.tuning.guesses import ENDED, Guesses
from medusa_decoding.tuning.reliability import (
    PRIOR,
    apply,
    calibration_errors,
    cross_calibrated,
    expected_calibration_error,
    fit,
    tokens_per_step,
)

RANKS = 4


def drawn(places: int, slopes: list[float], misses: list[float], seed: int = 0) -> Guesses:
    """Guesses whose right ranks are drawn from the calibrated probabilities."""
    random = np.random.default_rng(seed)
    heads = len(slopes)
    said = -np.sort(-random.dirichlet(np.ones(RANKS + 1) * 0.5, (places, heads))[..., 1:], axis=-1)
    true = calibrated(said, np.array(slopes), np.array(misses))
    cumulative = true.cumsum(-1)
    ranks = (random.random((places, heads, 1)) > cumulative).sum(-1)
    return Guesses(said, ranks, np.arange(places) // 40)


def test_slope_and_miss_are_found_again() -> None:
    guesses = drawn(20_000, [1.0, 0.7, 1.4], [0.0, 1.0, -0.8])
    found = fit(guesses, 0.5)
    assert found.temperature == 0.5
    assert found.slopes == pytest.approx((1.0, 0.7, 1.4), rel=0.15)
    assert found.misses == pytest.approx((0.0, 1.0, -0.8), abs=0.25)
    before, after = calibration_errors(guesses), calibration_errors(apply(found, guesses))
    assert before[1] > 0.08 and after[1] < 0.06


@pytest.mark.parametrize(("places", "slope", "miss"), [(3, 1.0, 0.0), (50, 0.3, 2.0), (200, 2.5, -3.0)])
def test_no_other_slope_and_miss_are_likelier(places: int, slope: float, miss: float) -> None:
    guesses = drawn(places, [slope], [miss], seed=places)
    found = fit(guesses, 0.0)

    def value(slope: float, miss: float) -> float:
        """What the fit maximises, from the formula of the map itself."""
        mapped: FloatArray = calibrated(guesses.probabilities, np.array([slope]), np.array([miss]))[:, 0]
        whole = np.concatenate([mapped, 1 - mapped.sum(1, keepdims=True)], axis=1)
        right = np.log(np.maximum(whole[np.arange(len(guesses)), guesses.ranks[:, 0]], 1e-300)).sum()
        return float(right - PRIOR / 2 * ((slope - 1) ** 2 + miss**2))

    best = value(found.slopes[0], found.misses[0])
    grid = itertools.product(np.linspace(0.05, 4, 60), np.linspace(-6, 6, 60))
    assert best >= max(value(one, other) for one, other in grid) - 1e-6


def test_later_heads_are_fitted_where_the_earlier_ones_were_right() -> None:
    """Head 2 is never wrong behind a right guess and never right elsewhere."""
    ranks = np.array([[0, 0], [1, RANKS]] * 200)
    said = np.full((400, 2, RANKS), 0.2)
    found = fit(Guesses(said, ranks, np.arange(400)), 0.0)
    assert found.misses[1] < -1
    after = apply(found, Guesses(said, ranks, np.arange(400)))
    assert after.probabilities[0, 1].sum() > 0.95


def test_a_head_without_places_keeps_its_probabilities() -> None:
    ranks = np.array([[1, 0, ENDED]] * 5)
    found = fit(Guesses(np.full((5, 3, RANKS), 0.1), ranks, np.arange(5)), 0.0)
    assert (found.slopes[1:], found.misses[1:]) == ((1.0, 1.0), (0.0, 0.0))


def test_texts_are_judged_by_a_fit_on_other_texts() -> None:
    guesses = drawn(4000, [0.5], [1.0])
    found = cross_calibrated(guesses, 0.0)
    folds = guesses.folds()
    expected = apply(fit(guesses.of(folds != 0), 0.0), guesses.of(folds == 0))
    np.testing.assert_array_equal(found.probabilities[folds == 0], expected.probabilities)
    alone = Guesses(guesses.probabilities, guesses.ranks, np.zeros_like(guesses.texts))
    np.testing.assert_array_equal(cross_calibrated(alone, 0.0).probabilities, guesses.probabilities)


def test_expected_calibration_error_of_a_hand_made_table() -> None:
    confidence = np.array([0.9, 0.1, 0.2, 0.8])
    right = np.array([True, False, True, False])
    # Bins {0.1, 0.2} and {0.8, 0.9}: |0.15 - 0.5| and |0.85 - 0.5|.
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(0.35)
    assert expected_calibration_error(confidence, right, bins=1) == pytest.approx(0.0)
    assert expected_calibration_error(confidence[:0], right[:0], bins=1) == 0.0


def test_promised_and_true_tokens_of_the_trees_in_the_docs() -> None:
    """ "cat" 0.6 or "dog" 0.3, then "sat" 0.5 or "ran" 0.4: the trees of 3 and 5 rows."""
    said = np.tile([[0.6, 0.3], [0.5, 0.4]], (4, 1, 1))
    ranks = np.array([[0, 1], [1, 0], [0, 0], [2, 0]])
    guesses = Guesses(said, ranks, np.arange(4))
    three, five = tokens_per_step(guesses, [3, 5])
    assert three == pytest.approx((1.9, 1.75))
    # Nodes: cat, dog, cat-sat, cat-ran.
    assert five == pytest.approx((2.44, 1.0 + (2 + 1 + 2 + 0) / 4))


def test_bounds_hold_where_texts_say_nothing_sensible() -> None:
    said = np.full((500, 1, RANKS), 0.2)
    never = fit(Guesses(said, np.full((500, 1), RANKS), np.arange(500)), 0.0)
    assert apply(never, Guesses(said, np.full((500, 1), RANKS), np.arange(500))).probabilities.max() < 0.02
    assert never.misses[0] <= 20
    worst = np.tile(np.array([0.9, 0.05, 0.02, 0.01]), (500, 1, 1))
    upside_down = fit(Guesses(worst, np.full((500, 1), 3), np.arange(500)), 0.0)
    assert upside_down.slopes[0] >= 0.05
    assert isinstance(upside_down, Fit)
