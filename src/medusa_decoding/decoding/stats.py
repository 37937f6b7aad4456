"""Statistics of a decode, counted over emitted tokens only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medusa_decoding.decoding.tree import IntArray


@dataclass
class Statistics:
    """What a decode did and what it cost. Times are in seconds.

    The token that comes out of the prefill belongs to the prefill: `tokens`, `steps` and `decode_seconds` are
    about the steps after it.
    drafted, accepted: per head, nodes verified and guesses that became text.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    nodes: int = 0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    decode_seconds: float = 0.0
    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    @property
    def acceleration_rate(self) -> float:
        """Mean tokens emitted per step; autoregressive decoding has 1."""
        return self.tokens / self.steps if self.steps else 1.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the decoding steps per second; prefill is not counted."""
        return self.tokens / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a step: draft, verify, accept, commit."""
        return self.decode_seconds / self.steps if self.steps else 0.0

    def count_step(self, depths: IntArray, guessed: int, emitted: int) -> None:
        """Count one step: depths of the tree's nodes, how many emitted tokens were guesses, how many were
        emitted.
        """
        self.steps += 1
        self.tokens += emitted
        self.nodes += len(depths)
        if len(depths) > 1:
            _add(self.drafted, np.bincount(depths)[1:].tolist())
        _add(self.accepted, [1] * guessed)

    def add(self, other: Statistics) -> None:
        """Add another decode's counts and times."""
        for name, value in vars(other).items():
            if isinstance(value, list):
                _add(getattr(self, name), value)
            else:
                setattr(self, name, getattr(self, name) + value)


def _add(counts: list[int], more: list[int]) -> None:
    """Add `more` to `counts` place by place, longer if need be."""
    counts.extend([0] * (len(more) - len(counts)))
    for place, count in enumerate(more):
        counts[place] += count
