"""Passes over an engine, every row of them compared with the plain forward of its path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from medusa_decoding.decoding import Rows, Tree
from medusa_decoding.decoding.protocols import as_rows, concatenate
from medusa_decoding.engines import TorchEngine
from tests.engines.tiny_models import VOCABULARY, plain

TOLERANCE = 1e-9
# Some layers compute in float32 whatever the weights are: norms of a few models, rotary tables, routers.
FLOAT32_INSIDE = 3e-5


def random_tree(random: np.random.Generator, nodes: int, reach: int = 99) -> Tree:
    """A random tree; with reach 2, say, a node's parent is one of the two before it, so it is deep."""
    parents = [-1, *(int(random.integers(max(0, node - reach), node)) for node in range(1, nodes))]
    return Tree(random.integers(0, VOCABULARY, nodes), np.array(parents), np.ones(nodes))


def chain(tokens: list[int]) -> Tree:
    return Tree(np.array(tokens), np.arange(len(tokens)) - 1, np.ones(len(tokens)))


@dataclass
class Passes:
    """An engine and the texts that it should hold, by handle."""

    model: Any
    engine: TorchEngine
    tolerance: float = TOLERANCE
    texts: dict[int, list[int]] = field(default_factory=dict)

    def open(self) -> int:
        handle = self.engine.open()
        self.texts[handle] = []
        return handle

    def rows(self, trees: dict[int, Tree], wanted: bool = True) -> Rows:
        return concatenate(
            [
                as_rows(
                    handle,
                    tree.tokens,
                    len(self.texts[handle]),
                    tree.parents,
                    tree.depths,
                    np.full(len(tree), wanted),
                )
                for handle, tree in trees.items()
            ]
        )

    def verify(self, trees: dict[int, Tree]) -> None:
        """Run the trees in one pass and check the logits and the hidden state of every row."""
        verified, offset = self.engine.forward(self.rows(trees)), 0
        for handle, tree in trees.items():
            for node in range(len(tree)):
                logits, hidden = plain(self.model, self.texts[handle] + tree.tokens[tree.path(node)].tolist())
                error = np.abs(verified.logits(offset + node) - logits[-1].numpy()).max()
                assert error < self.tolerance, f"row {node} of {tree.parents}: {error}"
                assert (verified.hidden(offset + node) - hidden[-1]).abs().max() < self.tolerance
                assert verified.argmax(np.array([offset + node])) == [int(logits[-1].argmax())]
            offset += len(tree)

    def commit(self, trees: dict[int, Tree], nodes: dict[int, int]) -> None:
        """Keep the path to one node of each tree, of those that are named."""
        kept, offset = list[int](), 0
        for handle, tree in trees.items():
            if handle in nodes:
                path = tree.path(nodes[handle])
                kept += [offset + node for node in path]
                self.texts[handle] += tree.tokens[path].tolist()
            offset += len(tree)
        self.engine.commit(np.array(kept, np.int64))

    def feed(self, handle: int, tokens: list[int]) -> None:
        """A prompt piece, of which no row is wanted."""
        trees = {handle: chain(tokens)}
        self.engine.forward(self.rows(trees, wanted=False))
        self.commit(trees, {handle: len(tokens) - 1})

    def kept(self, handle: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(heads, tokens, size) keys and values of each layer that the sequence holds."""
        slot = self.engine._slots[handle]
        assert slot.length == len(self.texts[handle])
        return [
            (layer.keys[slot.index, :, : slot.length], layer.values[slot.index, :, : slot.length])
            for layer in self.engine._cache.layers
        ]

    def check_cache(self, handle: int) -> None:
        """The keys and values equal those of a fresh prefill of the same tokens in one piece."""
        fresh = Passes(self.model, TorchEngine(self.model, 64, self.engine.support))
        other = fresh.open()
        fresh.feed(other, self.texts[handle])
        for mine, theirs in zip(self.kept(handle), fresh.kept(other), strict=True):
            for one, expected in zip(mine, theirs, strict=True):
                assert one.shape == expected.shape
                assert (one - expected).abs().max() < self.tolerance
