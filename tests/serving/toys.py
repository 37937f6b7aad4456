"""A toy model for the scheduler, and what tests collect of its work."""

from __future__ import annotations

import asyncio
import string
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from medusa_decoding.decoding import BestFirstPlanner, Drafter, LookupDrafter, Rows
from medusa_decoding.generation import GenerationOptions, Medusa
from medusa_decoding.serving.jobs import Emitted, Event, Finished, Job, Ticket, Verified
from medusa_decoding.serving.observer import Ending, Progress
from tests.decoding.toy import RandomDrafter, ToyEngine, ToyVerified, random_table

VOCABULARY = 12
END = VOCABULARY - 1
POISON = VOCABULARY - 2
"""A token that makes a pass fail, where an engine is `Poisoned`."""


class Letters:
    """A tokenizer whose tokens are letters; tokens of `broken` are none."""

    def __init__(self, broken: Iterable[int] = ()) -> None:
        self.eos_ids = frozenset([END])
        self.broken = frozenset(broken)

    def stream(self) -> Letters:
        return self

    def push(self, ids: Sequence[int]) -> str:
        if self.broken & set(ids):
            raise RuntimeError("no letter")
        return "".join(string.ascii_letters[token] for token in ids)

    def flush(self) -> str:
        return ""


class Gated(ToyEngine):
    """An engine whose passes wait until a test lets them."""

    gate: threading.Semaphore | None = None

    def forward(self, rows: Rows) -> ToyVerified:
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        return super().forward(rows)


class Poisoned(ToyEngine):
    """An engine whose pass fails if it holds a certain token."""

    def forward(self, rows: Rows) -> ToyVerified:
        if POISON in rows.tokens:
            raise MemoryError
        return super().forward(rows)


def toy_medusa(
    kind: type[ToyEngine] = ToyEngine,
    *,
    context: int = 200,
    drafter: Drafter | None = None,
    broken: Iterable[int] = (),
) -> Medusa:
    """A model of a table that guesses at random and looks up."""
    engine = kind(random_table(VOCABULARY, seed=4), context)
    medusa = Medusa("toy", Letters(broken), engine, "toy")  # type: ignore[arg-type]
    medusa.drafter = drafter or RandomDrafter(3, 3, VOCABULARY, 0)
    medusa.lookup = LookupDrafter()
    medusa.planner = BestFirstPlanner(6)
    return medusa


def job(prompt: Sequence[int], *, fields: dict[str, Any] | None = None, **options: Any) -> Job:
    """A job; `fields` are its own, `options` those of the generation."""
    chosen = {"temperature": 0.8, "max_tokens": 10, "ignore_eos": True, **options}
    return Job(list(prompt), GenerationOptions.of(None, chosen), **(fields or {}))


@dataclass
class Answer:
    """What came of a job."""

    events: list[Event] = field(default_factory=list)
    error: Exception | None = None

    @property
    def tokens(self) -> list[int]:
        return [event.token for event in self.events if isinstance(event, Emitted)]

    @property
    def text(self) -> str:
        parts = [event.text for event in self.events if not isinstance(event, Verified)]
        return "".join(parts)

    @property
    def end(self) -> Finished:
        [end] = [event for event in self.events if isinstance(event, Finished)]
        assert self.events[-1] is end
        return end


async def answered(ticket: Ticket) -> Answer:
    """All events of a job, or what it failed with."""
    answer = Answer()
    try:
        async for event in ticket:
            answer.events.append(event)
    except Exception as error:
        answer.error = error
    return answer


async def all_answered(tickets: Iterable[Ticket]) -> list[Answer]:
    return list(await asyncio.gather(*(answered(ticket) for ticket in tickets)))


def alone(medusa: Medusa, one: Job) -> tuple[list[int], str, str]:
    """Tokens, text and reason of a job without mask, decoded plainly and by itself."""
    from medusa_decoding.decoding import Sequence as Text

    stream = medusa.write(Text(list(one.prompt), choice=one.choice), one.options, speculative=False)
    for _ in stream:
        pass
    return stream.result.tokens, stream.result.text, stream.result.finish_reason


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run it, for twenty seconds at most."""
    return asyncio.run(asyncio.wait_for(main(), 20))


@dataclass
class Counts:
    """An observer that counts, and holds each text to the order of its events."""

    waiting: int = 0
    running: int = 0
    first_tokens: int = 0
    prompt_tokens: int = 0
    reused: int = 0
    endings: list[Ending] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    def queued(self) -> None:
        self.waiting += 1

    def started(self, prompt_tokens: int, reused: int, seconds: float) -> None:
        assert 0 <= reused < prompt_tokens and seconds >= 0
        self.waiting -= 1
        self.running += 1
        self.prompt_tokens += prompt_tokens
        self.reused += reused

    def first_token(self, seconds: float) -> None:
        assert seconds >= 0
        self.first_tokens += 1

    def stepped(self, rows: int, seconds: float, texts: Sequence[Progress]) -> None:
        assert seconds >= 0
        self.rows.append(rows)
        self.progress += texts

    def ended(self, ending: Ending, *, started: bool) -> None:
        if started:
            self.running -= 1
        else:
            self.waiting -= 1
        assert self.running >= 0 and self.waiting >= 0
        self.endings.append(ending)
