"""The best static tree of some heads: `medusa_choices` from measured accuracies (paper, section 2.3.3).

The paper adds the node of the largest product of its heads' accuracies each time. Accuracies of one step are
not independent of each other, so here a node is worth what was counted: how often its whole path was right.
"""

from __future__ import annotations

from collections import Counter

from medusa_decoding.decoding.tree import Choices, IntArray, parse_choices
from medusa_decoding.tuning.guesses import Guesses


def best_choices(guesses: Guesses, rows: int) -> Choices:
    """The tree of at most `rows` rows, its root included, that would have brought the most tokens per step.

    Taking the path that was right most often each time is optimal, because no path was right more often than
    its parent. Paths that were never right are left out; ties go to the shorter path, then to lower ranks.
    """
    counts = path_counts(_whole(guesses), guesses.choices)
    ranked = sorted(counts, key=lambda path: (-counts[path], len(path), path))
    return parse_choices(ranked[: rows - 1])


def path_counts(ranks: IntArray, choices: int) -> Counter[tuple[int, ...]]:
    """How often each path of ranks was right. ranks: (N, K), `choices` where no guess was.

    >>> sorted(path_counts(np.array([[0, 1], [0, 2]]), 2).items())
    [((0,), 2), ((0, 1), 1)]
    """
    counts: Counter[tuple[int, ...]] = Counter()
    for row in ranks.tolist():
        right = row[: row.index(choices)] if choices in row else row
        counts.update(tuple(right[:length]) for length in range(1, len(right) + 1))
    return counts


def tokens_per_step(guesses: Guesses, choices: Choices) -> float:
    """Mean tokens of a step with this static tree, the base model's own included."""
    ranks = _whole(guesses)
    counts = path_counts(ranks, guesses.choices)
    return 1.0 + sum(counts[path] for path in choices) / max(1, len(ranks))


def cross_validated_tokens(guesses: Guesses, rows: int) -> float | None:
    """The same with the best static tree of so many rows, for each fold's texts the tree of the other texts.

    None with a single text, where there are no others.
    """
    folds, total, places = guesses.folds(), 0.0, 0
    if not folds.any():
        return None
    for fold in range(int(folds.max()) + 1):
        held_out, others = guesses.of(folds == fold), guesses.of(folds != fold)
        count = int(held_out.whole().sum())
        total += count * tokens_per_step(held_out, best_choices(others, rows))
        places += count
    return total / places if places else 1.0


def _whole(guesses: Guesses) -> IntArray:
    """(n, K) ranks where all heads had something to guess."""
    ranks: IntArray = guesses.ranks[guesses.whole()]
    return ranks
