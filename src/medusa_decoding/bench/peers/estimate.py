"""Medians over prompts and how far they can be trusted.

The interval is the bootstrap's (Efron, 1979): prompts are drawn anew, with replacement, the median is taken
of each draw, and 2.5 % of those medians lie below the interval and 2.5 % above. So it says how much the
figure depends on which prompts were asked. The draws are the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medusa_decoding.bench.peers.result import Estimate

RESAMPLES = 10_000
OUTSIDE = 0.05
SEED = 0


def estimate(values: Sequence[float]) -> Estimate:
    """The median of `values`, one for each prompt and at least one, with its 95 % interval."""
    assert values
    given = np.array(values, np.float64)
    draws = np.random.default_rng(SEED).integers(len(given), size=(RESAMPLES, len(given)))
    medians = np.median(given[draws], axis=1)
    low, high = np.quantile(medians, (OUTSIDE / 2, 1 - OUTSIDE / 2))
    return Estimate(median=float(np.median(given)), low=float(low), high=float(high), prompts=len(given))


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours ÷ theirs for the prompts that both have; keys are prompts."""
    return [rate / theirs[prompt] for prompt, rate in ours.items() if prompt in theirs]
