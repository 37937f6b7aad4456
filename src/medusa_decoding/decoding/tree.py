"""Draft trees: the guesses of the heads, arranged so that one forward pass can check all of them.

The example used throughout the project, in full in docs/how-it-works.md. The base model has decided "The";
head 1 guesses "cat" (0.6) or "dog" (0.3), head 2 guesses "sat" (0.5) or "ran" (0.4). The five likeliest
nodes, the root included, are

    node   token  parent  path probability
    0      The      -1    1.00   (the root: decided, not guessed)
    1      cat       0    0.60
    2      dog       0    0.30
    3      sat       1    0.30
    4      ran       1    0.24

        The ─┬─ cat ─┬─ sat
             │       └─ ran
             └─ dog
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LOOKUP = -1
"""The source of a node that prompt lookup guessed; heads are counted from 1."""

Choices = tuple[tuple[int, ...], ...]
"""A static tree in the notation of the paper's code, `medusa_choices`: each path is a tuple of ranks, one per
head.
"""


@dataclass(frozen=True)
class Proposals:
    """What a drafter guesses for one sequence.

    tokens: (heads, ranks) token ids. Row h-1 holds head h's guesses for the token h places after the root,
    likeliest first.
    probabilities: (heads, ranks) the head's probability for each of them, given that the path before it is
    right.
    branches: guesses that follow one path and no other, below the same root: those of prompt lookup.
    """

    tokens: IntArray
    probabilities: FloatArray
    branches: Tree | None = None

    @classmethod
    def none(cls) -> Proposals:
        """No guesses at all: the tree is the root alone, and decoding is autoregressive."""
        return cls(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float64))

    @classmethod
    def of(cls, branches: Tree) -> Proposals:
        """Guesses of no head."""
        return replace(cls.none(), branches=branches)

    @property
    def depth(self) -> int:
        """How many tokens ahead the heads' guesses reach."""
        return self.tokens.shape[0] if self.tokens.shape[1] else 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no guess at all."""
        return not self.depth and self.branches is None


@dataclass(frozen=True)
class Tree:
    """A draft tree. Node 0 is the root; a parent stands before its children.

    tokens: (nodes,) token ids; children of one node hold different tokens.
    parents: (nodes,) index of the parent node, -1 for the root.
    probabilities: (nodes,) estimated probability that the path to the node is accepted; 1 for the root.
    looked_up: (nodes,) true where prompt lookup guessed, not a head; None where no node is.

    >>> parents, chances = np.array([-1, 0, 0, 1, 1]), np.array([1.0, 0.6, 0.3, 0.3, 0.24])
    >>> tree = Tree(np.array([11, 21, 22, 31, 32]), parents, chances)
    >>> tree.depths.tolist(), tree.child(1, 32), tree.path(4)
    ([0, 1, 1, 2, 2], 4, [0, 1, 4])
    """

    tokens: IntArray
    parents: IntArray
    probabilities: FloatArray
    looked_up: BoolArray | None = None

    @classmethod
    def of_root(cls, root: int) -> Tree:
        """The root alone."""
        tree = cls(np.array([root], np.int64), np.array([-1]), np.ones(1))
        tree.__dict__["depths"] = np.zeros(1, np.int64)
        return tree

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def depths(self) -> IntArray:
        """(nodes,) distance from the root: the node's position minus the root's."""
        depths = np.zeros(len(self), np.int64)
        for node, parent in enumerate(self.parents.tolist()):
            depths[node] = 0 if parent < 0 else depths[parent] + 1
        return depths

    @cached_property
    def sources(self) -> IntArray:
        """(nodes,) who guessed: h for head h, which guesses at depth h, LOOKUP for prompt lookup; 0 is the
        root.
        """
        return self.depths if self.looked_up is None else np.where(self.looked_up, LOOKUP, self.depths)

    @cached_property
    def _children(self) -> dict[tuple[int, int], int]:
        pairs = zip(self.parents.tolist(), self.tokens.tolist(), strict=True)
        return {pair: node for node, pair in enumerate(pairs) if pair[0] >= 0}

    def child(self, node: int, token: int) -> int | None:
        """The child of `node` that guesses `token`, if there is one."""
        return self._children.get((node, token))

    def children(self, node: int) -> list[int]:
        """All children of `node`, in order."""
        return np.flatnonzero(self.parents == node).tolist()

    def path(self, node: int) -> list[int]:
        """The nodes from the root to `node`, both included."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = int(self.parents[node])
        return nodes[::-1]

    def prefix(self, nodes: int) -> Tree:
        """The tree of the first `nodes` nodes, at least one: whole, because parents stand before children."""
        if nodes >= len(self):
            return self
        copied = None if self.looked_up is None else self.looked_up[:nodes]
        cut = Tree(self.tokens[:nodes], self.parents[:nodes], self.probabilities[:nodes], copied)
        cut.__dict__["depths"] = self.depths[:nodes]
        return cut

    def up_to_depth(self, depth: int) -> Tree:
        """The tree without the nodes deeper than `depth`."""
        return self.only(np.flatnonzero(self.depths <= depth))

    def only(self, keep: IntArray) -> Tree:
        """The tree of the nodes `keep`, rising, which holds the root and each node's parent."""
        if len(keep) == len(self):
            return self
        place = np.full(len(self) + 1, -1, np.int64)
        place[keep] = np.arange(len(keep))
        copied = None if self.looked_up is None else self.looked_up[keep]
        return Tree(self.tokens[keep], place[self.parents[keep]], self.probabilities[keep], copied)


def ancestor_mask(parents: IntArray) -> BoolArray:
    """(rows, rows) mask, true where the column is the row itself or one of its ancestors (paper, figure 2).

    `parents` holds, for each row, an earlier row or -1. Trees of several sequences may stand one after the
    other.

    >>> ancestor_mask(np.array([-1, 0, 0, 1, 1])).astype(int).tolist()
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 0, 1]]
    """
    mask = np.zeros((len(parents), len(parents)), np.bool_)
    for row, parent in enumerate(parents.tolist()):
        if parent >= 0:
            mask[row] = mask[parent]
        mask[row, row] = True
    return mask


def parse_choices(paths: Iterable[Sequence[int]]) -> Choices:
    """Check a static tree in `medusa_choices` notation and put parents before children.

    Raises ValueError where a path is empty or repeated, a rank is not a whole number of at least 0, or a
    prefix is missing.

    >>> parse_choices([[0, 1], [0], [1], [0, 0]])
    ((0,), (1,), (0, 0), (0, 1))
    """
    choices = [tuple(path) for path in paths]
    for path in choices:
        # Before sorting: ranks of other types may not compare. True and False are ints to Python.
        if not path or not all(type(rank) is int and rank >= 0 for rank in path):
            raise ValueError(
                f"{list(path)} is not a path: a path is a list of ranks, whole numbers from 0, one per head"
            )
    choices.sort(key=lambda path: (len(path), path))
    known: set[tuple[int, ...]] = {()}
    for path in choices:
        if path in known:
            raise ValueError(f"the path {list(path)} stands twice in the tree")
        if path[:-1] not in known:
            raise ValueError(
                f"the path {list(path)} has no parent: {list(path[:-1])} is missing from the tree"
            )
        known.add(path)
    return tuple(choices)


def static_tree(root: int, proposals: Proposals, choices: Choices, depth: int | None = None) -> Tree:
    """Fill a static topology with this step's guesses.

    Paths deeper than the heads reach, or of a rank that the drafter did not propose, are left out: with three
    heads, a tree made for four loses its last level.

    >>> two_heads = Proposals(np.array([[21, 22], [31, 32]]), np.array([[0.6, 0.3], [0.5, 0.4]]))
    >>> static_tree(11, two_heads, ((0,), (1,), (0, 0), (0, 1))).parents.tolist()
    [-1, 0, 0, 1, 1]
    """
    limit = proposals.depth if depth is None else min(depth, proposals.depth)
    ranks = proposals.tokens.shape[1]
    place: dict[tuple[int, ...], int] = {(): 0}
    tokens, parents, probabilities = [root], [-1], [1.0]
    for path in choices:
        parent, rank = place.get(path[:-1]), path[-1]
        if parent is None or len(path) > limit or rank >= ranks:
            continue
        place[path] = len(tokens)
        tokens.append(int(proposals.tokens[len(path) - 1, rank]))
        parents.append(parent)
        probabilities.append(probabilities[parent] * float(proposals.probabilities[len(path) - 1, rank]))
    return Tree(np.array(tokens, np.int64), np.array(parents, np.int64), np.array(probabilities, np.float64))
