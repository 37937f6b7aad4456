"""What the API asks of the scheduler, and what comes back: one text per job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from medusa_decoding.decoding import Statistics
from medusa_decoding.decoding.logprobs import Logprob as Logprob
from medusa_decoding.decoding.masking import Mask
from medusa_decoding.generation.options import GenerationOptions

Speculation = Literal["auto", "off"] | int
"""As the planner says, no guesses, or trees of exactly so many rows."""


@dataclass(frozen=True)
class Job:
    """One text to be written.

    prompt: token ids, at least one. options: `max_tokens` is cut to what the context leaves.
    choice: of several texts of one prompt and seed. logprobs: with each token, its log-probability under the
    base model and the so many likeliest (0: the token's own only; None: nothing). mask: which tokens may come
    next (a grammar's), of this job alone. trees: send each step's tree too. streamed: whether anybody looks
    at events before the last one; if not, they come all at once.
    """

    prompt: Sequence[int]
    options: GenerationOptions
    choice: int = 0
    speculation: Speculation = "auto"
    logprobs: int | None = None
    mask: Mask | None = None
    trees: bool = False
    streamed: bool = True


@dataclass(frozen=True)
class Emitted:
    """One more token.

    text: what became certain with it; may be empty. source: see `generation.Piece`.
    """

    token: int
    text: str
    source: int
    logprob: Logprob | None = None


@dataclass(frozen=True)
class Verified:
    """A step's draft tree, before the tokens that it brought.

    tokens, parents, probabilities, sources: of its nodes, see `decoding.Tree`; path: the accepted nodes, the
    root first.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    probabilities: tuple[float, ...]
    sources: tuple[int, ...]
    path: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """The end of a text. text: what was held back until now. reused: prompt tokens found in the cache."""

    reason: Literal["stop", "length"]
    statistics: Statistics
    text: str = ""
    reused: int = 0


Event = Emitted | Verified | Finished


class QueueFull(Exception):
    """No room in the queue. retry_after: whole seconds after which trying again makes sense."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class Draining(Exception):
    """The server is shutting down and takes no more work."""


class Failed(Exception):
    """The engine failed on this job; others go on."""


class Unsupported(Failed):
    """The job asks for a text that cannot be written; the message says why, and may be told."""


class Ticket(Protocol):
    """A job on its way: iterate over its events, which end with `Finished`; raises `Failed`.

    Leaving it early must be said by `cancel`, which frees the sequence within one step and may be called any
    number of times.
    """

    def __aiter__(self) -> AsyncIterator[Event]:
        """Events as they come."""
        ...

    def cancel(self) -> None:
        """Stop writing."""
        ...


class Jobs(Protocol):
    """The scheduler, as the API knows it."""

    def submit(self, jobs: Sequence[Job]) -> list[Ticket]:
        """Take all of these jobs (the choices of one request), or none.

        Called in the event loop. Raises `QueueFull`, `Draining`.
        """
        ...

    async def drain(self) -> None:
        """Refuse new jobs; return when those taken are done."""
        ...
