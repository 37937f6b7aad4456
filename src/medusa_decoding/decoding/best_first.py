"""Best-first trees: the likeliest nodes of all that heads and prompt lookup guess, in one tree."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from medusa_decoding.decoding.tree import Proposals, Tree


def best_first(
    root: int, proposals: Proposals, nodes: int, depth: int | None = None, least: float = 0.0
) -> Tree:
    """The tree of the `nodes` likeliest nodes, the root included, no deeper than `depth`, without those whose
    path is right with a probability below `least`.

    The probability of a path is the product of its guesses' probabilities, each given that the path before it
    is right. Heads guess below every node; branches below the node that their own path leads to, and where
    a head guesses the same token there, that is one node with the larger of both probabilities. Taking the
    likeliest open node each time is optimal, because no child is likelier than its parent. Ties go to the
    node opened first.

    >>> two_heads = Proposals(np.array([[21, 22], [31, 32]]), np.array([[0.6, 0.3], [0.5, 0.4]]))
    >>> best_first(11, two_heads, 5).tokens.tolist()
    [11, 21, 22, 31, 32]
    >>> branch = Tree(np.array([11, 22, 41]), np.array([-1, 0, 1]), np.array([1.0, 0.5, 0.4]))
    >>> both = Proposals(two_heads.tokens, two_heads.probabilities, branch)
    >>> best_first(11, both, 4).tokens.tolist(), best_first(11, both, 4).sources.tolist()
    ([11, 21, 22, 41], [0, 1, -1, -1])
    """
    if proposals.is_empty:
        return Tree.of_root(root)
    growth = _Growth(root, proposals, nodes, depth)
    while growth.frontier and len(growth.tokens) < nodes and -growth.frontier[0].negative >= least:
        growth.take(heapq.heappop(growth.frontier))
    return growth.tree()


class _Guess(NamedTuple):
    """An open node, in the order of the frontier.

    negative: minus its path probability. order: of opening. above: its parent's path probability. rank: of
    the head's guess, -1 for one of a branch. branch, siblings: the branches' node of its own path and of its
    parent's, -1 where they have none.
    """

    negative: float
    order: int
    parent: int
    above: float
    rank: int
    token: int
    branch: int
    siblings: int
    looked_up: bool


class _Growth:
    """A tree while it grows. Lists, because this runs at each step and indexing an array costs ten times as
    much.
    """

    def __init__(self, root: int, proposals: Proposals, nodes: int, depth: int | None) -> None:
        branches = proposals.branches
        reach = max(proposals.depth, 0 if branches is None else int(branches.depths.max()))
        self._limit = (reach if depth is None else min(depth, reach)) if nodes > 1 else 0
        heads = max(0, min(self._limit, proposals.depth))
        # A guess of rank r needs r better ones in the tree.
        self._guesses: list[list[int]] = proposals.tokens[:heads, : nodes - 1].tolist()
        self._chances: list[list[float]] = proposals.probabilities[:heads, : nodes - 1].tolist()
        self._offered = _children(branches)
        self.tokens, self.frontier = [root], list[_Guess]()
        self._parents, self._probabilities, self._depths, self._looked_up = [-1], [1.0], [0], [False]
        self._opened = 0
        self._open_children(0, 1.0, 0 if self._offered else -1)

    def take(self, guess: _Guess) -> None:
        """Make an open node part of the tree, and open what is next."""
        if guess.negative >= 0.0:
            self.frontier.clear()
            return
        node, chance = len(self.tokens), -guess.negative
        self.tokens.append(guess.token)
        self._parents.append(guess.parent)
        self._probabilities.append(chance)
        self._depths.append(self._depths[guess.parent] + 1)
        self._looked_up.append(guess.looked_up)
        if guess.rank >= 0:
            self._open_rank(guess.parent, guess.above, guess.rank + 1, guess.siblings)
        self._open_children(node, chance, guess.branch)

    def tree(self) -> Tree:
        """What has grown."""
        tree = Tree(
            np.array(self.tokens, np.int64),
            np.array(self._parents, np.int64),
            np.array(self._probabilities, np.float64),
            np.array(self._looked_up) if any(self._looked_up) else None,
        )
        tree.__dict__["depths"] = np.array(self._depths, np.int64)
        return tree

    def _open_children(self, node: int, chance: float, branch: int) -> None:
        head = self._depths[node]
        if head >= self._limit:
            return
        if branch >= 0:
            for token, (given, child) in self._offered[branch].items():
                by_head = self._by_head(head, token)
                self._open(node, chance, max(given, by_head), -1, token, child, branch, given > by_head)
        self._open_rank(node, chance, 0, branch)

    def _open_rank(self, parent: int, above: float, rank: int, siblings: int) -> None:
        """Open the head's next guess below `parent` that no branch offers there too."""
        head = self._depths[parent]
        if head >= len(self._guesses):
            return
        guesses = self._guesses[head]
        while siblings >= 0 and rank < len(guesses) and guesses[rank] in self._offered[siblings]:
            rank += 1
        if rank < len(guesses):
            self._open(parent, above, self._chances[head][rank], rank, guesses[rank], -1, siblings, False)

    def _by_head(self, head: int, token: int) -> float:
        """The head's probability for `token`; 0 where it does not guess it."""
        if head >= len(self._guesses) or token not in self._guesses[head]:
            return 0.0
        return self._chances[head][self._guesses[head].index(token)]

    def _open(
        self,
        parent: int,
        above: float,
        given: float,
        rank: int,
        token: int,
        branch: int,
        siblings: int,
        looked_up: bool,
    ) -> None:
        self._opened += 1
        guess = _Guess(-above * given, self._opened, parent, above, rank, token, branch, siblings, looked_up)
        heapq.heappush(self.frontier, guess)


def _children(branches: Tree | None) -> list[dict[int, tuple[float, int]]]:
    """Per node of the branches its children: by token, the probability given the node, and the child."""
    if branches is None:
        return []
    children: list[dict[int, tuple[float, int]]] = [{} for _ in range(len(branches))]
    tokens, chances = branches.tokens.tolist(), branches.probabilities.tolist()
    for node, parent in enumerate(branches.parents.tolist()):
        if parent >= 0:
            given = chances[node] / chances[parent] if chances[parent] else 0.0
            children[parent][tokens[node]] = (given, node)
    return children
