"""Log-probabilities of tokens under the base model itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medusa_decoding.decoding.sampling import likeliest
from medusa_decoding.decoding.tree import FloatArray


@dataclass(frozen=True)
class Logprob:
    """Natural log-probabilities of the base model's own logits, before temperature, penalties and masks.

    top: token ids with theirs, likeliest first.
    """

    value: float
    top: tuple[tuple[int, float], ...] = ()


def logprob(logits: FloatArray, token: int, top: int = 0) -> Logprob:
    """Of one token after the row of these (vocabulary,) logits, and of the `top` likeliest; ties to the
    lowest id.

    >>> found = logprob(np.log([0.5, 0.2, 0.3]), 1, 2)
    >>> round(found.value, 3), [(token, round(value, 3)) for token, value in found.top]
    (-1.609, [(0, -0.693), (2, -1.204)])
    """
    peak = float(logits.max())
    total = peak + math.log(float(np.exp(logits - peak).sum()))
    best = likeliest(logits, min(top, len(logits))).tolist() if top else []
    return Logprob(float(logits[token]) - total, tuple((one, float(logits[one]) - total) for one in best))
