"""What the scheduler tells of its work, for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Ending = Literal["stop", "length", "cancelled", "failed"]


@dataclass(frozen=True)
class Progress:
    """What one decoding step did for one text.

    guesses: nodes of its tree without the root. accepted: how many of them became text. tokens: emitted, the
    base model's own included. seconds: since this text's tokens before these.
    """

    guesses: int
    accepted: int
    tokens: int
    seconds: float


class Observer(Protocol):
    """Is told of each text (a request's choice) in the order queued, started, first_token, ended; of these
    the first and the last always come, exactly once.

    Methods return at once, raise nothing and may be called from any thread.
    """

    def queued(self) -> None:
        """A text was taken and waits."""
        ...

    def started(self, prompt_tokens: int, reused: int, seconds: float) -> None:
        """A text that waited so long now runs; `reused` of its prompt's tokens were found in the cache."""
        ...

    def first_token(self, seconds: float) -> None:
        """A prompt is read and its first token is there, so long after the text was queued."""
        ...

    def stepped(self, rows: int, seconds: float, texts: Sequence[Progress]) -> None:
        """One forward pass over `rows` rows, pieces of prompts included, took so long; `texts` are those that
        were beyond their prompts.
        """
        ...

    def ended(self, ending: Ending, *, started: bool) -> None:
        """A text is done or given up; `started`: it no longer waited."""
        ...


class NoObserver:
    """Takes no notes."""

    def queued(self) -> None:
        """Nothing."""

    def started(self, prompt_tokens: int, reused: int, seconds: float) -> None:
        """Nothing."""

    def first_token(self, seconds: float) -> None:
        """Nothing."""

    def stepped(self, rows: int, seconds: float, texts: Sequence[Progress]) -> None:
        """Nothing."""

    def ended(self, ending: Ending, *, started: bool) -> None:
        """Nothing."""
