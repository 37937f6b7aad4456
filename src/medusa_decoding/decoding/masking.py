"""Masks: which tokens may come next in a text, and what they leave of the guesses.

A mask is applied where the base model chooses, at each node of the acceptance walk, so a constrained text is
the same with any tree or none. Guesses that it forbids could never be accepted; they get no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from medusa_decoding.decoding.tree import BoolArray, Proposals, Tree


class Mask(Protocol):
    """Which tokens may come next in one text, a grammar's for example."""

    def allowed(self, path: Sequence[int]) -> BoolArray:
        """(vocabulary,) true for tokens that may follow the text so far and, after it, `path`; at least one.

        `path` holds tokens that are allowed themselves, each after those before it.
        """
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """These tokens have become text."""
        ...


class RememberedMask:
    """A mask that is asked once for each path of a step: what prunes the tree, the walk asks for again."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._known: dict[tuple[int, ...], BoolArray] = {}

    def allowed(self, path: Sequence[int]) -> BoolArray:
        """See `Mask`. Raises ValueError where nothing at all may follow."""
        key = tuple(path)
        if key not in self._known:
            found = self._mask.allowed(path)
            if not found.any():
                raise ValueError("the mask allows no token")
            self._known[key] = found
        return self._known[key]

    def advance(self, tokens: Sequence[int]) -> None:
        """See `Mask`."""
        self._known.clear()
        self._mask.advance(tokens)


def permitted_guesses(proposals: Proposals, mask: Mask, ends: frozenset[int]) -> Proposals:
    """The guesses without those of the first head that the mask forbids and without branches it forbids.

    What later heads guess depends on the path: `permitted_tree` looks at it. A forbidden guess goes to the
    end of its row, with probability 0.
    """
    if proposals.branches is not None:
        proposals = replace(proposals, branches=permitted_tree(proposals.branches, mask, ends))
    if not proposals.depth:
        return proposals
    allowed = mask.allowed([])[proposals.tokens[0]]
    order = np.argsort(~allowed, kind="stable")
    tokens, chances = proposals.tokens.copy(), proposals.probabilities.copy()
    tokens[0] = tokens[0][order]
    chances[0] = np.where(allowed, chances[0], 0.0)[order]
    return replace(proposals, tokens=tokens, probabilities=chances)


def permitted_tree(tree: Tree, mask: Mask, ends: frozenset[int]) -> Tree:
    """The tree without the nodes that may not follow their paths, and without those below an end of the text
    (`ends`), after which nothing is asked of the mask.
    """
    paths: dict[int, list[int]] = {0: []}
    tokens = tree.tokens.tolist()
    for node, parent in enumerate(tree.parents.tolist()[1:], 1):
        above = paths.get(parent)
        if above is None or (parent and tokens[parent] in ends):
            continue
        if mask.allowed(above)[tokens[node]]:
            paths[node] = [*above, tokens[node]]
    return tree.only(np.array(sorted(paths), np.int64))
