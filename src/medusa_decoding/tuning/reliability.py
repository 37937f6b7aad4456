"""Fit and judge a calibration: do guesses come true as often as their probabilities say?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.calibration import LEAST_REST, Fit, calibrated
from medusa_decoding.decoding.tree import BoolArray, FloatArray, IntArray, Proposals
from medusa_decoding.tuning.guesses import Guesses

BINS = 15
LEAST_PLACES = 30
"""Of a bin."""
PRIOR = 4.0
"""How firmly slope 1 and miss 0 are held to: that of a few places, so that a head with none keeps them."""
_ITERATIONS = 50
# Bounds of slope and miss.
_LEAST, _MOST = np.array([0.05, -20.0]), np.array([20.0, 20.0])


def fit(guesses: Guesses, temperature: float) -> Fit:
    """The likeliest slope and miss of each head where the path before it was right.

    There a head's guess decides whether a path goes on. Which of its guesses is right, or none, is a choice
    among R + 1; its log-likelihood is concave in slope and miss, and Newton's method finds the maximum.
    temperature: at which the texts were drawn.
    """
    on_path = guesses.on_path()
    found = [
        _fit_head(guesses.probabilities[on_path[:, head], head], guesses.ranks[on_path[:, head], head])
        for head in range(guesses.heads)
    ]
    return Fit(temperature, tuple(slope for slope, _ in found), tuple(miss for _, miss in found))


def apply(fitted: Fit, guesses: Guesses) -> Guesses:
    """The guesses with calibrated probabilities."""
    probabilities = calibrated(guesses.probabilities, np.array(fitted.slopes), np.array(fitted.misses))
    return Guesses(probabilities, guesses.ranks, guesses.texts)


def cross_calibrated(guesses: Guesses, temperature: float) -> Guesses:
    """The guesses with calibrated probabilities, those of each fold's texts by a fit on the other texts.

    With a single text there is nothing else to fit on, and its probabilities stay.
    """
    folds = guesses.folds()
    probabilities = guesses.probabilities.copy()
    for fold in np.unique(folds):
        held_out, others = guesses.of(folds == fold), guesses.of(folds != fold)
        if len(others):
            probabilities[folds == fold] = apply(fit(others, temperature), held_out).probabilities
    return Guesses(probabilities, guesses.ranks, guesses.texts)


def calibration_errors(guesses: Guesses) -> list[float]:
    """(K,) expected calibration error of each head's first choice, where the path before it was right."""
    on_path = guesses.on_path()
    errors = []
    for head in range(guesses.heads):
        there = on_path[:, head]
        # Chance alone makes the share that was right differ from any confidence in a bin of few places.
        bins = min(BINS, int(there.sum()) // LEAST_PLACES)
        errors.append(
            expected_calibration_error(
                guesses.probabilities[there, head, 0], guesses.ranks[there, head] == 0, max(1, bins)
            )
        )
    return errors


def expected_calibration_error(confidence: FloatArray, right: BoolArray, bins: int) -> float:
    """Mean over bins of |mean confidence - share that was right| (Guo et al., 2017), bins of equal counts.

    0 where there are no places.

    >>> expected_calibration_error(np.array([0.2, 0.8]), np.array([False, True]), bins=1)
    0.0
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(
        sum(abs(float(confidence[part].sum()) - float(right[part].sum())) for part in parts)
        / max(1, len(confidence))
    )


def tokens_per_step(guesses: Guesses, rows: Sequence[int], places: int = 2000) -> list[tuple[float, float]]:
    """For best-first trees of `rows` rows: the tokens per step that the probabilities promise, and the true
    ones.

    Looks at up to `places` places at which all heads had something to guess, evenly spread.
    """
    chosen = np.flatnonzero(guesses.whole())
    chosen = chosen[:: max(1, -(-len(chosen) // places))]
    promised, true = np.zeros(len(rows)), np.zeros(len(rows))
    tokens = np.broadcast_to(np.arange(guesses.choices), (guesses.heads, guesses.choices))
    for place in chosen.tolist():
        tree = best_first(0, Proposals(tokens, guesses.probabilities[place]), max(rows))
        right = _right_nodes(tree.parents, tree.tokens, tree.depths, guesses.ranks[place])
        promised += [tree.probabilities[:size].sum() for size in rows]
        true += [right[:size].sum() for size in rows]
    count = max(1, len(chosen))
    return list(zip((promised / count).tolist(), (true / count).tolist(), strict=True))


def _right_nodes(parents: IntArray, tokens: IntArray, depths: IntArray, ranks: IntArray) -> BoolArray:
    """(nodes,) whether the path to each node is right, where tokens are the guesses' ranks."""
    right = np.ones(len(parents), np.bool_)
    for node in range(1, len(parents)):
        right[node] = right[parents[node]] and tokens[node] == ranks[depths[node] - 1]
    return right


def _fit_head(probabilities: FloatArray, ranks: IntArray) -> tuple[float, float]:
    """(slope, miss). probabilities: (n, R); ranks: (n,) the right guess's, R where none is."""
    rest = np.maximum(1.0 - probabilities.sum(1, keepdims=True), LEAST_REST)
    logs = np.log(np.maximum(np.concatenate([probabilities, rest], axis=1), 1e-30))
    chosen = logs[np.arange(len(logs)), ranks]
    missed = ranks == probabilities.shape[1]
    point = np.array([1.0, 0.0])
    value = _value(point, logs, chosen, missed)
    for _ in range(_ITERATIONS):
        gradient, curvature = _derivatives(point, logs, chosen, missed)
        step = np.linalg.solve(curvature, gradient)
        before = value
        # Newton's step is halved until it helps; the bounds keep heads usable whatever the texts are.
        for halving in range(_ITERATIONS):
            trial = np.clip(point + step / 2**halving, _LEAST, _MOST)
            if (reached := _value(trial, logs, chosen, missed)) > value:
                point, value = trial, reached
                break
        if value - before <= 1e-10 * abs(value):
            break
    return float(point[0]), float(point[1])


def _log_shares(point: FloatArray, logs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n, R + 1) log-probabilities of the choices, the last being none, and their (n,) log-totals."""
    scores = point[0] * logs
    scores[:, -1] += point[1]
    most = scores.max(1, keepdims=True)
    totals = most + np.log(np.exp(scores - most).sum(1, keepdims=True))
    return scores - totals, totals[:, 0]


def _value(point: FloatArray, logs: FloatArray, chosen: FloatArray, missed: BoolArray) -> float:
    """The log-likelihood, less the prior."""
    _, totals = _log_shares(point, logs)
    likelihood = (point[0] * chosen + point[1] * missed - totals).sum()
    return float(likelihood - PRIOR / 2 * ((point[0] - 1) ** 2 + point[1] ** 2))


def _derivatives(
    point: FloatArray, logs: FloatArray, chosen: FloatArray, missed: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """(2,) gradient and (2, 2) negative Hessian of `_value`: the covariance of (log p, missed)."""
    shares, _ = _log_shares(point, logs)
    weights: FloatArray = np.exp(shares)
    mean_log: FloatArray = np.sum(weights * logs, axis=1)
    mean_miss: FloatArray = weights[:, -1]
    gradient = np.array([(chosen - mean_log).sum(), (missed - mean_miss).sum()])
    gradient -= PRIOR * (point - np.array([1.0, 0.0]))
    both = (weights[:, -1] * logs[:, -1] - mean_log * mean_miss).sum()
    logs_twice = (np.sum(weights * logs**2, axis=1) - mean_log**2).sum()
    miss_twice = (mean_miss * (1 - mean_miss)).sum()
    curvature = np.array([[logs_twice, both], [both, miss_twice]]) + PRIOR * np.eye(2)
    return gradient, curvature
