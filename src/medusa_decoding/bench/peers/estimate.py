"""Medians over prompts and how far they can be trusted.

The interval is the bootstrap's (Efron, 1979): prompts are drawn anew, with replacement, the median is taken
of each draw, and 2.5 % of those medians lie below the interval and 2.5 % above. So it says how much the
figure depends on which prompts were asked. The draws are the same in every run.

A machine that others use too is not as fast later as it was: the interval is widened on both sides by as
much as the first prompts differed when they were run once more at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from medusa_decoding.bench.peers.result import Estimate

RESAMPLES = 10_000
OUTSIDE = 0.05
SEED = 0


def estimate(values: Sequence[float], drift: float = 0.0) -> Estimate:
    """The median of `values`, one for each prompt and at least one, with its 95 % interval.

    drift: theirs, by which the interval is widened.
    """
    assert values
    given = np.array(values, np.float64)
    draws = np.random.default_rng(SEED).integers(len(given), size=(RESAMPLES, len(given)))
    medians = np.median(given[draws], axis=1)
    low, high = np.quantile(medians, (OUTSIDE / 2, 1 - OUTSIDE / 2))
    return Estimate(
        median=float(np.median(given)),
        low=float(low) * math.exp(-drift),
        high=float(high) * math.exp(drift),
        prompts=len(given),
    )


def drift(first: Mapping[int, float], again: Mapping[int, float]) -> float:
    """How far rates moved: the root of the mean square of the logarithms of their changes.

    Keys are prompts; 0 where none was run again.

    >>> round(drift({0: 100.0, 1: 50.0}, {0: 110.0}), 3)
    0.095
    """
    changes = [math.log(rate / first[prompt]) for prompt, rate in again.items() if prompt in first]
    return math.sqrt(sum(change**2 for change in changes) / len(changes)) if changes else 0.0


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """Ours ÷ theirs for the prompts that both have; keys are prompts."""
    return {prompt: rate / theirs[prompt] for prompt, rate in ours.items() if prompt in theirs}
