"""From a row's logits to the next token: penalties, temperature, truncation, and a draw that depends on
(seed, choice, index) alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from medusa_decoding.decoding.tree import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class SamplingParameters:
    """How the next token is chosen. The defaults are greedy decoding.

    temperature: 0 takes the likeliest token (ties: lowest id); otherwise logits are divided by it.
    top_k: keep the k likeliest tokens (0: all). top_p: keep the likeliest tokens whose mass reaches p.
    min_p: keep tokens of at least min_p times the likeliest one's probability.
    repetition_penalty: divides positive and multiplies negative logits of tokens seen in prompt or text.
    presence_penalty, frequency_penalty: subtracted once, or per occurrence, for tokens seen in the text.
    logit_bias: token id -> value added to its logit.
    seed: the text is a function of the seed; the same with any draft tree or none.

    Raises ValueError for values outside their ranges.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "temperature must be a number of at least 0": 0 <= self.temperature < float("inf"),
            "top_k must be 0 (off) or a positive whole number": self.top_k >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "min_p must be at least 0 and at most 1": 0 <= self.min_p <= 1,
            "repetition_penalty must be above 0": 0 < self.repetition_penalty < float("inf"),
            "presence_penalty must be a finite number": isfinite(self.presence_penalty),
            "frequency_penalty must be a finite number": isfinite(self.frequency_penalty),
            "logit_bias must hold finite numbers": all(map(isfinite, self.logit_bias.values())),
            "seed must be a whole number from 0 to 2^64-1": 0 <= self.seed < 2**64,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(message)

    @property
    def changes_logits(self) -> bool:
        """Whether a penalty or bias applies before the temperature does."""
        penalties = self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
        return penalties or bool(self.logit_bias)

    @property
    def truncates(self) -> bool:
        """Whether top-k, top-p or min-p may leave tokens out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def is_argmax(self) -> bool:
        """Whether the next token is the argmax of the base model's own logits, so that no logits need be
        looked at.
        """
        return self.temperature == 0 and not self.changes_logits


@dataclass(frozen=True)
class Distribution:
    """The processed distribution of the next token, without the tokens of probability 0.

    ids: (n,) token ids in rising order. probabilities: (n,) float64, summing to 1.
    """

    ids: IntArray
    probabilities: FloatArray

    def draw(self, uniform: float) -> int:
        """Inverse of the cumulative distribution, tokens in id order, at `uniform` in [0, 1)."""
        cumulative = np.cumsum(self.probabilities)
        place = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        return int(self.ids[min(place, len(self.ids) - 1)])

    def probability(self, token: int) -> float:
        """The probability of one token."""
        place = int(np.searchsorted(self.ids, token))
        found = place < len(self.ids) and self.ids[place] == token
        return float(self.probabilities[place]) if found else 0.0

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        return float(-np.sum(self.probabilities * np.log(np.maximum(self.probabilities, 1e-300))))


def uniform(seed: int, choice: int, index: int) -> float:
    """The uniform number in [0, 1) that decides token `index` of choice `choice`.

    Counter-based (Philox 4x64): any token's number is had without drawing those before it, so it does not
    depend on how many tokens a step emitted.
    """
    # A list that holds numbers of 2^63 and more would pass through float64 and lose their last bits.
    key, counter = np.array([seed, choice], np.uint64), np.array([0, index, 0, 0], np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key, counter=counter)).random())


def distribution(
    logits: FloatArray,
    parameters: SamplingParameters,
    prompt: Sequence[int],
    text: Sequence[int],
    allowed: BoolArray | None = None,
) -> Distribution:
    """The processed distribution after `prompt` and `text`.

    In order: penalties and bias, mask, temperature, top-k, top-p, min-p. At temperature 0 all mass lies on
    the argmax. allowed: (vocabulary,) false where a token has no probability; true at least once.
    """
    scores = adjusted(logits, parameters, prompt, text) if parameters.changes_logits else logits
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    if parameters.temperature == 0:
        return Distribution(np.array([np.argmax(scores)], np.int64), np.ones(1))
    # A temperature near 0 may overflow to -inf for all but the best, which is its limit.
    with np.errstate(over="ignore"):
        weights = scores - scores.max()
        weights /= parameters.temperature
    np.exp(weights, out=weights)
    if not parameters.truncates and weights.all():
        # Most texts' way: the whole vocabulary, without looking tokens up one by one.
        weights /= weights.sum()
        return Distribution(np.arange(len(weights)), weights)
    ids = truncated(weights, parameters)
    kept = weights[ids]
    positive = kept > 0
    return Distribution(ids[positive], kept[positive] / kept[positive].sum())


def adjusted(
    logits: FloatArray, parameters: SamplingParameters, prompt: Sequence[int], text: Sequence[int]
) -> FloatArray:
    """(vocabulary,) logits with penalties and bias applied; the input is left as it is."""
    scores = logits.copy()
    if parameters.repetition_penalty != 1:
        seen = np.unique(np.array([*prompt, *text], np.int64))
        penalty = parameters.repetition_penalty
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
    if text and (parameters.presence_penalty or parameters.frequency_penalty):
        seen, counts = np.unique(np.array(text, np.int64), return_counts=True)
        scores[seen] -= parameters.presence_penalty + parameters.frequency_penalty * counts
    for token, bias in parameters.logit_bias.items():
        scores[token] += bias
    return scores


def truncated(weights: FloatArray, parameters: SamplingParameters) -> IntArray:
    """The ids, rising, that top-k, top-p and min-p leave of unnormalised probabilities.

    Ties at an edge go to the lowest ids.
    """
    size = len(weights)
    kept = likeliest(weights, parameters.top_k) if 0 < parameters.top_k < size else None
    if parameters.top_p < 1:
        kept = _nucleus(weights, kept, parameters.top_p)
    ids = np.arange(size) if kept is None else np.sort(kept)
    if parameters.min_p > 0:
        ids = ids[weights[ids] >= parameters.min_p * weights[ids].max()]
    return ids


def likeliest(weights: FloatArray, count: int) -> IntArray:
    """The ids of the `count` largest weights, largest first, ties by rising id, without sorting the whole
    vocabulary.
    """
    edge = np.partition(weights, -count)[-count]
    above = np.flatnonzero(weights > edge)
    level = np.flatnonzero(weights == edge)[: count - len(above)]
    ids = np.concatenate([above, level])
    return ids[np.lexsort((ids, -weights[ids]))]


def _nucleus(weights: FloatArray, kept: IntArray | None, mass: float) -> IntArray:
    """The fewest likeliest ids whose share of the total reaches `mass`;

    Looks at 256 ids, then at eight times as many.
    """
    pool = weights if kept is None else weights[kept]
    total = pool.sum()
    count = min(256, len(pool))
    while True:
        order = likeliest(weights, count) if kept is None else kept[:count]
        cumulative = np.cumsum(weights[order])
        if cumulative[-1] >= mass * total or count == len(pool):
            return order[: int(np.searchsorted(cumulative, mass * total, side="left")) + 1]
        count = min(8 * count, len(pool))
