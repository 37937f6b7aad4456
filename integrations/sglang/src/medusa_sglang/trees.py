"""Medusa's trees as SGLang's n-gram worker takes them from its corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medusa_sglang.settings import Choices


class StaticTree:
    """A tree of one shape, the root as its node 0.

    choices: a path per node, parents before children; entry h of a path is the rank among head h's guesses.
    parents: (n,) each node's parent, -1 for the root. mask: (n, n), true where the column's node lies on the
    row's path, itself included.
    """

    def __init__(self, choices: Choices) -> None:
        places = {(): 0, **{path: place for place, path in enumerate(choices, 1)}}
        self.parents = np.array([-1, *(places[path[:-1]] for path in choices)])
        self._heads = np.array([len(path) - 1 for path in choices])
        self._ranks = np.array([path[-1] for path in choices])
        self.mask = np.eye(len(places), dtype=bool)
        for node, parent in enumerate(self.parents[1:], 1):
            self.mask[node] |= self.mask[parent]

    @property
    def ranks(self) -> int:
        """Guesses of a head that the tree has room for."""
        return int(self._ranks.max()) + 1

    @property
    def size(self) -> int:
        """Nodes, the root included."""
        return len(self.parents)

    def tokens(self, root: int, guesses: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) tokens of the nodes. guesses: (K, R) of each head, likeliest first."""
        return np.concatenate([[root], guesses[self._heads, self._ranks]])

    def last_of(self, tokens: NDArray[np.int64], said: Sequence[int]) -> int:
        """The node where the path `said`, the tokens after the root, ends in a tree of these `tokens`."""
        node = 0
        for token in said:
            (found,) = np.flatnonzero((self.parents == node) & (tokens == token))
            node = int(found)
        return node
