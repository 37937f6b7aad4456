"""What a benchmark asks of everything that it compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class PeerMissing(Exception):
    """A peer that is not there. install: the line that brings it, if one does."""

    def __init__(self, reason: str, install: str | None = None) -> None:
        super().__init__(reason)
        self.install = install


class PeerFailed(Exception):
    """A side that can do no more; the text says why."""


class NoAnswer(Exception):
    """A prompt that a side wrote nothing for that could be counted; it can go on with the next."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as the token ids that it has with the model's chat template."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class Written:
    """What a side wrote. Times are seconds on its own clock.

    count, seconds: of the tokens after the prefill's. prefill_seconds: until the prefill's were there.
    tokens: ids of all, the prefill's too; None where they are not known. steps: that `count` tokens took.
    """

    count: int
    seconds: float
    prefill_seconds: float
    tokens: list[int] | None = None
    steps: int | None = None


@dataclass(frozen=True)
class About:
    """What a result says of a side; see `SideResult`. slow: gets the first prompts only (`peer_limit`).

    weights_key: sides with the same hold the same weights, whose perplexity is asked for once.
    """

    name: str
    peer: str
    description: str
    weights: str
    weights_key: str
    versions: dict[str, str] = field(default_factory=dict)
    slow: bool = False


class Side(Protocol):
    """One way to decode greedily. Any call may raise PeerFailed, after which only `close` is called."""

    @property
    def about(self) -> About:
        """What it is."""
        ...

    def write(self, prompt: Prompt, tokens: int) -> Written:
        """Write `tokens` tokens after `prompt`, at least 2, the end of text ignored where that can be asked
        for. Raises NoAnswer.
        """
        ...

    def log_likelihood(self, tokens: Sequence[int]) -> float | None:
        """Of tokens 1, 2, … in nats, each given those before it, summed; None where it cannot be had."""
        ...

    def close(self) -> None:
        """Free what it holds. May be called twice."""
        ...
