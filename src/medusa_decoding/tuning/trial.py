"""One sequence of synthetic tokens, to time passes of trees over it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from medusa_decoding.decoding import Context, Drafter, Engine, Proposals, Tree
from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.protocols import as_rows

PREFILL_ROWS = 512
DEPTH = 4
"""Of the trees: how many tokens beyond the context have to fit."""
_TYPICAL = Proposals(
    np.arange(160).reshape(DEPTH, 40), np.outer(0.8 ** np.arange(DEPTH), 0.6 ** np.arange(1, 41))
)


class Trial:
    """Times are in seconds. Nothing but what `fill` adds is committed, so every pass finds the same state."""

    def __init__(self, engine: Engine, drafter: Drafter | None) -> None:
        self._engine = engine
        self._drafter = drafter
        self._handle = engine.open()
        self._tokens: list[int] = []
        self._hidden: Any = None

    def close(self) -> None:
        """Free the engine's memory."""
        self._engine.close(self._handle)

    def fill(self, length: int) -> float:
        """Commit tokens until there are `length`; how long each took."""
        started, before = time.perf_counter(), len(self._tokens)
        for first in range(before, length, PREFILL_ROWS):
            places = np.arange(min(PREFILL_ROWS, length - first))
            tokens = (7 * (first + places) + 3) % self._engine.vocabulary_size
            unwanted = np.zeros(len(places), np.bool_)
            self._engine.forward(as_rows(self._handle, tokens, first, places - 1, places, unwanted))
            self._engine.commit(places)
            self._tokens.extend(tokens.tolist())
        return (time.perf_counter() - started) / (length - before)

    def step(self, rows: int) -> float:
        """Run a tree of so many rows and ask for all its tokens, as a step of decoding does."""
        tree = self._tree(rows)
        wanted = np.ones(rows, np.bool_)
        started = time.perf_counter()
        verified = self._engine.forward(
            as_rows(self._handle, tree.tokens, len(self._tokens), tree.parents, tree.depths, wanted)
        )
        verified.argmax(np.arange(rows))
        ended = time.perf_counter()
        self._hidden = verified.hidden(0)
        self._engine.commit(np.zeros(0, np.int64))
        return ended - started

    def draft(self, sequences: int) -> float:
        """Ask the drafter for so many sequences, after a step, which leaves the caches as decoding does."""
        assert self._drafter is not None
        contexts = [Context(self._tokens, self._hidden)] * sequences
        started = time.perf_counter()
        self._drafter.propose(contexts)
        return time.perf_counter() - started

    def _tree(self, rows: int) -> Tree:
        tree = best_first(0, _TYPICAL, rows)
        assert len(tree) == rows
        return Tree(tree.tokens % self._engine.vocabulary_size, tree.parents, tree.probabilities)
