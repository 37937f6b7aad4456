"""From what heads say of their guesses to how often these come true.

A tree is worth the probabilities of its paths, and a path's probability is a product only if each factor is
conditional: head h's probability for a token, given that the path before it was right. Heads are trained on
all positions and know nothing of tokens outside their list, so what they say is mapped, per head: with p_r
the head's probability of its guess of rank r and p_rest what its list leaves over,

    q_r = p_r^a / (sum over ranks of p^a + e^m * p_rest^a)

a is the slope (the inverse of a temperature) and m the miss: how much likelier than the head thinks, in
log-odds, it is that none of its guesses is right. The order of the guesses stays, and they sum to 1 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medusa_decoding.decoding.protocols import Context, Drafter
from medusa_decoding.decoding.tree import FloatArray, Proposals

LEAST_REST = 1e-6
"""The smallest p_rest: a head that is sure of its list can still be wrong."""


@dataclass(frozen=True)
class Fit:
    """The map of each head at one sampling temperature (0: greedy). slopes, misses: (heads,), slopes > 0."""

    temperature: float
    slopes: tuple[float, ...]
    misses: tuple[float, ...]


class Calibration:
    """Maps for all temperatures: linear between the fitted ones, the nearest fit beyond them.

    fits: at least one, by rising temperature.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        assert fits
        self.fits = tuple(fits)
        self._known: dict[float, tuple[FloatArray, FloatArray]] = {}

    def apply(self, probabilities: FloatArray, temperature: float) -> FloatArray:
        """(heads, ranks) what heads say of their guesses → (heads, ranks) how often they come true."""
        if temperature not in self._known:
            fitted = self.at(temperature)
            self._known[temperature] = np.array(fitted.slopes), np.array(fitted.misses)
        slopes, misses = self._known[temperature]
        heads = len(probabilities)
        return calibrated(probabilities, slopes[:heads], misses[:heads])

    def at(self, temperature: float) -> Fit:
        """The map at one temperature."""
        known = [fit.temperature for fit in self.fits]
        slopes = [
            np.interp(temperature, known, one) for one in zip(*(fit.slopes for fit in self.fits), strict=True)
        ]
        misses = [
            np.interp(temperature, known, one) for one in zip(*(fit.misses for fit in self.fits), strict=True)
        ]
        return Fit(temperature, tuple(map(float, slopes)), tuple(map(float, misses)))


def calibrated(probabilities: FloatArray, slopes: FloatArray, misses: FloatArray) -> FloatArray:
    """The map of the module's text. probabilities: (..., heads, ranks); slopes, misses: (heads,).

    >>> calibrated(np.array([[0.6, 0.2]]), np.array([1.0]), np.array([np.log(2.0)])).round(3).tolist()
    [[0.5, 0.167]]
    """
    powers = probabilities ** slopes[:, None]
    rest = np.maximum(1.0 - probabilities.sum(-1, keepdims=True), LEAST_REST)
    total = powers.sum(-1, keepdims=True) + np.exp(misses)[:, None] * rest ** slopes[:, None]
    return np.asarray(powers / total, np.float64)


class CalibratedDrafter:
    """A drafter whose probabilities are mapped, for the temperature of each sequence."""

    def __init__(self, drafter: Drafter, calibration: Calibration) -> None:
        self.drafter = drafter
        self.calibration = calibration

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """The drafter's guesses; none of them changes its place."""
        return [
            replace(one, probabilities=self.calibration.apply(one.probabilities, context.temperature))
            if one.depth
            else one
            for one, context in zip(self.drafter.propose(contexts), contexts, strict=True)
        ]
