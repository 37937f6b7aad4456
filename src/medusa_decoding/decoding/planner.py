"""Planners that know no cost: which guesses get a row of the next forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from medusa_decoding.decoding.protocols import Planner
from medusa_decoding.decoding.tree import Choices, Proposals, Tree, best_first, static_tree


class BestFirstPlanner(Planner):
    """A new tree at each step: the likeliest nodes by the heads' own probabilities.

    rows: nodes of a tree, the root included. 1 is autoregressive decoding.
    """

    def __init__(self, rows: int = 16) -> None:
        assert rows >= 1
        self.rows = rows

    def grow(
        self,
        roots: Sequence[int],
        proposals: Sequence[Proposals],
        depths: Sequence[int],
        contexts: Sequence[int],
    ) -> list[Tree]:
        """One best-first tree per sequence."""
        return [
            best_first(root, guesses, self.rows, depth)
            for root, guesses, depth in zip(roots, proposals, depths, strict=True)
        ]


class StaticPlanner(Planner):
    """The same topology at each step, as in the paper (section 2.1.2):

    `medusa_choices`, filled with the step's guesses.
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
