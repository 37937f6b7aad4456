"""Degenerate loops: answers in which a model says the same thing over and over."""

from __future__ import annotations

from collections.abc import Sequence

GRAM = 8


def repeated_tokens(tokens: Sequence[int]) -> int:
    """How many tokens lie in an 8-gram that began earlier in the text already.

    >>> repeated_tokens([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8])
    8
    """
    seen: set[tuple[int, ...]] = set()
    count = covered = 0
    for start in range(len(tokens) - GRAM + 1):
        gram = tuple(tokens[start : start + GRAM])
        if gram in seen:
            count += start + GRAM - max(covered, start)
            covered = start + GRAM
        seen.add(gram)
    return count


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether repeated 8-grams make up more than half of the text."""
    return 2 * repeated_tokens(tokens) > len(tokens)
