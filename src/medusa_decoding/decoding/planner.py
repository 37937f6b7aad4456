"""Planners that know no cost: which guesses get a row of the next forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.protocols import Planner
from medusa_decoding.decoding.tree import Choices, Proposals, Tree, static_tree


class BestFirstPlanner(Planner):
    """A new tree at each step: the likeliest nodes by the guesses' own probabilities.

    rows: nodes of a tree, the root included. 1 is autoregressive decoding. least: path probability below
    which a guess gets no row.
    """

    def __init__(self, rows: int = 16, least: float = 0.0) -> None:
        assert rows >= 1
        self.rows = rows
        self.least = least

    def grow(
        self,
        roots: Sequence[int],
        proposals: Sequence[Proposals],
        depths: Sequence[int],
        contexts: Sequence[int],
    ) -> list[Tree]:
        """One best-first tree per sequence."""
        trees = [
            best_first(root, guesses, self.rows, depth)
            for root, guesses, depth in zip(roots, proposals, depths, strict=True)
        ]
        return [tree.prefix(int((tree.probabilities >= self.least).sum())) for tree in trees]


class StaticPlanner(Planner):
    """The same topology at each step, as in the paper (section 2.1.2):

    `medusa_choices`, filled with the heads' guesses of the step. It has no places for prompt lookup's.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices

    def grow(
        self,
        roots: Sequence[int],
        proposals: Sequence[Proposals],
        depths: Sequence[int],
        contexts: Sequence[int],
    ) -> list[Tree]:
        """The static tree, filled for each sequence."""
        return [
            static_tree(root, guesses, self.choices, depth)
            for root, guesses, depth in zip(roots, proposals, depths, strict=True)
        ]
