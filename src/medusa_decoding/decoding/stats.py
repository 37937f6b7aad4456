"""Statistics of a decode, counted over emitted tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medusa_decoding.decoding.tree import LOOKUP


@dataclass
class Statistics:
    """What a decode did and what it cost. Times are in seconds.

    The token that comes out of the prefill belongs to the prefill: `tokens`, `steps` and `decode_seconds` are
    about the steps after it.
    drafted, accepted: per head, nodes verified and guesses that became text. looked_up, looked_up_accepted:
    the same of prompt lookup.
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
    looked_up: int = 0
    looked_up_accepted: int = 0

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

    def count_step(self, nodes: Sequence[int], emitted: Sequence[int]) -> None:
        """Count one step: the sources of the tree's nodes and of the emitted tokens (`Tree.sources`; 0 is
        the base model).
        """
        self.steps += 1
        self.tokens += len(emitted)
        self.nodes += len(nodes)
        _add(self.drafted, _by_head(nodes))
        _add(self.accepted, _by_head(emitted))
        self.looked_up += nodes.count(LOOKUP)
        self.looked_up_accepted += emitted.count(LOOKUP)

    def add(self, other: Statistics) -> None:
        """Add another decode's counts and times."""
        for name, value in vars(other).items():
            if isinstance(value, list):
                _add(getattr(self, name), value)
            else:
                setattr(self, name, getattr(self, name) + value)


def _by_head(sources: Sequence[int]) -> list[int]:
    """How often each head is among the sources."""
    return [sources.count(head) for head in range(1, max(sources, default=0) + 1)]


def _add(counts: list[int], more: list[int]) -> None:
    """Add `more` to `counts` place by place, longer if need be."""
    counts.extend([0] * (len(more) - len(counts)))
    for place, count in enumerate(more):
        counts[place] += count
