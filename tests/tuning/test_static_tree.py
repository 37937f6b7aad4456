from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.decoding.tree import IntArray
from medusa_decoding.tuning.guesses import ENDED, Guesses
from medusa_decoding.tuning.static_tree import best_choices, cross_validated_tokens, tokens_per_step
from tests.decoding.toy import connected_subtrees

RANKS = 3


def table(ranks: IntArray, texts: IntArray | None = None) -> Guesses:
    numbers = np.zeros(len(ranks), np.int64) if texts is None else texts
    return Guesses(np.zeros((*ranks.shape, RANKS)), ranks, numbers)


def accepted(ranks: IntArray, shape: frozenset[tuple[int, ...]]) -> float:
    """Mean length of the right path in the tree, walked as acceptance walks it."""
    lengths = []
    for row in ranks.tolist():
        path: tuple[int, ...] = ()
        while len(path) < len(row) and (*path, row[len(path)]) in shape:
            path = (*path, row[len(path)])
        lengths.append(len(path))
    return float(np.mean(lengths))


@given(
    st.lists(st.lists(st.integers(0, RANKS), min_size=2, max_size=2), min_size=1, max_size=12),
    st.integers(1, 8),
)
def test_no_tree_of_that_size_would_have_brought_more(rows: list[list[int]], size: int) -> None:
    ranks = np.array(rows)
    best = max(accepted(ranks, shape) for shape in connected_subtrees(2, RANKS) if len(shape) < size)
    choices = best_choices(table(ranks), size)
    assert len(choices) < size
    assert tokens_per_step(table(ranks), choices) == pytest.approx(1 + best)
    assert 1 + accepted(ranks, frozenset(choices)) == pytest.approx(1 + best)


def test_a_path_counts_as_a_whole() -> None:
    """Head 2's second choice is right oftener than its first, but never where head 1 is right."""
    ranks = np.array([[0, 0], [0, 0], [3, 1], [3, 1], [3, 1], [1, 3]])
    assert best_choices(table(ranks), 4) == ((0,), (1,), (0, 0))
    assert best_choices(table(ranks), 40) == ((0,), (1,), (0, 0))


def test_places_near_the_end_of_a_text_do_not_count() -> None:
    ranks = np.array([[0, 0], [1, ENDED], [1, ENDED]])
    assert best_choices(table(ranks), 2) == ((0,),)
    assert tokens_per_step(table(ranks), ((0,), (0, 0))) == 3.0


def test_held_out_texts_get_the_tree_of_the_others() -> None:
    ranks = np.array([[0, 3], [0, 3], [1, 3], [1, 3]])
    texts = np.array([0, 1, 2, 2])
    # Folds are the texts: the others' best tree of two rows is [1] for texts 0 and 1, and [0] for text 2.
    assert cross_validated_tokens(table(ranks, texts), 2) == 1.0
    assert cross_validated_tokens(table(ranks), 2) is None
