"""Acceptance: which path of a draft tree becomes text.

Both rules look at the base model's processed distribution through a `Judge` and return the accepted path and
the emitted tokens: those of the path's guessed nodes and one more, which the base model itself adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from medusa_decoding.decoding.sampling import Distribution
from medusa_decoding.decoding.tree import Tree


class Judge(Protocol):
    """The base model's opinion on one sequence's tree.

    `guessed` are the tokens on the path from the root to `node`, without the root.
    """

    def choose(self, node: int, guessed: Sequence[int]) -> int:
        """The token that the base model emits after `node`: the argmax, or the draw for that place in the
        text.
        """
        ...

    def distribution(self, node: int, guessed: Sequence[int]) -> Distribution:
        """The processed distribution after `node`."""
        ...


@dataclass(frozen=True)
class Accepted:
    """The outcome of one tree.

    path: accepted nodes from the root, root included. tokens: what is emitted; token i is the guess of node
    path[i + 1], the last one is the base model's own. So both have the same length.
    """

    path: list[int]
    tokens: list[int]


class Acceptance(Protocol):
    """A rule of acceptance."""

    lossless: bool

    def accept(self, tree: Tree, judge: Judge) -> Accepted:
        """Decide on one tree."""
        ...


class ExactAcceptance:
    """The walk. At each accepted node the base model chooses its token; a child that guessed it is accepted,
    else the walk ends.

    This is rejection sampling with point-mass proposals: the text has the base model's distribution, and
    because the choice at a place depends on (seed, choice, index) alone, it is the text that decoding without
    a tree gives. At temperature 0 it is greedy.
    """

    lossless = True

    def accept(self, tree: Tree, judge: Judge) -> Accepted:
        """Walk down from the root while the base model agrees."""
        path, tokens = [0], list[int]()
        while True:
            tokens.append(judge.choose(path[-1], tokens))
            child = tree.child(path[-1], tokens[-1])
            if child is None:
                return Accepted(path, tokens)
            path.append(child)


class TypicalAcceptance:
    """Typical acceptance (paper, section 2.3.1). Not lossless: it keeps guesses that are plausible, not those
    that were drawn.

    A guess x is accepted while p(x) > min(epsilon, delta * exp(-H(p))), p the base model's processed
    distribution at its parent and H its entropy. The longest accepted path wins, ties by likelihood. The
    token after it is drawn from the base model, so that a temperature is honoured. At temperature 0 the rule
    is greedy.
    """

    lossless = False

    def __init__(self, epsilon: float = 0.09, delta: float = 0.3) -> None:
        if not (0 < epsilon < 1 and 0 < delta <= 1):
            raise ValueError("typical acceptance needs 0 < epsilon < 1 and 0 < delta <= 1")
        self.epsilon = epsilon
        self.delta = delta

    def accept(self, tree: Tree, judge: Judge) -> Accepted:
        """Search the accepted part of the tree, depth first, for its longest path."""
        best: tuple[int, float, list[int]] = (1, 0.0, [0])
        pending: list[tuple[list[int], float]] = [([0], 0.0)]
        while pending:
            path, likelihood = pending.pop()
            if (len(path), likelihood) > best[:2]:
                best = (len(path), likelihood, path)
            pending.extend(self._descend(tree, judge, path, likelihood))
        path = best[2]
        guessed = tree.tokens[path[1:]].tolist()
        return Accepted(path, [*guessed, judge.choose(path[-1], guessed)])

    def _descend(
        self, tree: Tree, judge: Judge, path: list[int], likelihood: float
    ) -> list[tuple[list[int], float]]:
        children = tree.children(path[-1])
        if not children:
            return []
        p = judge.distribution(path[-1], tree.tokens[path[1:]].tolist())
        threshold = min(self.epsilon, self.delta * math.exp(-p.entropy))
        chances = [(child, p.probability(int(tree.tokens[child]))) for child in children]
        return [
            ([*path, child], likelihood + math.log(chance)) for child, chance in chances if chance > threshold
        ]
