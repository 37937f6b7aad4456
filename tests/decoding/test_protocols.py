from __future__ import annotations

import numpy as np

from medusa_decoding.decoding.protocols import Context, NoDrafter, as_rows, concatenate


def test_rows_of_several_sequences_are_renumbered() -> None:
    ones = np.ones(3, np.bool_)
    tree = as_rows(4, np.array([7, 8, 9]), 10, np.array([-1, 0, 0]), np.array([0, 1, 1]), ones)
    chain = as_rows(2, np.array([5, 6, 7]), 0, np.array([-1, 0, 1]), np.arange(3), ~ones)
    rows = concatenate([tree, chain])
    assert len(rows) == 6
    assert rows.sequences.tolist() == [4, 4, 4, 2, 2, 2]
    assert rows.tokens.tolist() == [7, 8, 9, 5, 6, 7]
    assert rows.positions.tolist() == [10, 11, 11, 0, 1, 2]
    assert rows.parents.tolist() == [-1, 0, 0, -1, 3, 4]
    assert rows.wanted.tolist() == [True] * 3 + [False] * 3
    assert concatenate([tree]) is tree


def test_no_drafter_proposes_nothing() -> None:
    assert [guesses.depth for guesses in NoDrafter().propose([Context([1], None)] * 3)] == [0, 0, 0]
