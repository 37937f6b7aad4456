"""An engine and a drafter whose time is made up, with a clock that only they move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from medusa_decoding.decoding import Context, Proposals, Rows, StepCost
from medusa_decoding.decoding.tree import IntArray

SMALL = StepCost(
    (1, 2, 4, 6, 8, 12, 16, 32),
    {
        256: (5.6, 5.7, 6.4, 7.2, 8.4, 12.0, 16.0, 33.0),
        8192: (15.0, 16.0, 18.0, 20.0, 23.0, 32.0, 42.0, 90.0),
    },
    {1: 0.5, 4: 0.8},
)
"""Like SmolLM2 on two cores."""


@dataclass
class Clock:
    """now: in seconds. waiting: how many seconds threads wait for a processor in each."""

    now: float = 100.0
    waiting: float = 0.0

    def pass_by(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000


@dataclass
class ClockedEngine:
    """Takes what `cost` says, and keeps the rules of engines.

    is_slow: whether the pass of this number takes three times as long. memory: the most tokens; beyond is
    `error`.
    """

    clock: Clock
    cost: StepCost = SMALL
    context_length: int = 100_000
    is_slow: Callable[[int], bool] = lambda _: False
    memory: int = 10**9
    error: Exception = field(default_factory=MemoryError)
    description: str = "made-up"
    threads: int = 2
    vocabulary_size: int = 1000
    weight_bytes: int = 100_000_000
    bandwidths: list[float] = field(default_factory=lambda: [20.0])
    lengths: dict[int, int] = field(default_factory=dict)
    trees: list[int] = field(default_factory=list)
    passes: int = 0
    pending: Rows | None = None

    def open(self) -> int:
        self.lengths[7] = 0
        return 7

    def close(self, sequence: int) -> None:
        del self.lengths[sequence]

    def truncate(self, sequence: int, length: int) -> None:
        raise AssertionError("nothing to forget")

    def forward(self, rows: Rows) -> ClockedEngine:
        assert self.pending is None
        [handle] = set(rows.sequences.tolist())
        length = self.lengths[handle]
        if length + len(rows) > self.memory:
            raise self.error
        assert rows.positions.max() < self.context_length
        above = np.where(rows.parents < 0, length - 1, rows.positions[rows.parents])
        assert (rows.positions == above + 1).all()
        assert ((rows.tokens >= 0) & (rows.tokens < self.vocabulary_size)).all()
        self.passes += 1
        self.clock.pass_by(self.cost.step(len(rows), length) * (3 if self.is_slow(self.passes) else 1))
        if rows.wanted.any():
            self.trees.append(len(rows))
        self.pending = rows
        return self

    def commit(self, accepted: IntArray) -> None:
        assert self.pending is not None
        self.lengths[int(self.pending.sequences[0])] += len(accepted)
        self.pending = None

    def argmax(self, rows: IntArray) -> IntArray:
        self.clock.pass_by(0.01 * len(rows))
        return rows

    def hidden(self, row: int) -> int:
        return row

    def read_bandwidth(self) -> float:
        return self.bandwidths[self.passes % len(self.bandwidths)]


@dataclass
class ClockedDrafter:
    """Takes what the engine's cost says."""

    engine: ClockedEngine

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        assert all(len(context.tokens) == self.engine.lengths[7] for context in contexts)
        assert all(context.hidden is not None for context in contexts)
        self.engine.clock.pass_by(self.engine.cost.draft(len(contexts)))
        return [Proposals.none() for _ in contexts]
