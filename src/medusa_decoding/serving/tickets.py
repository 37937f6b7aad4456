"""Tickets: how events get from the engine's thread to who waits for them in an event loop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress

from medusa_decoding.serving.jobs import Event, Failed, Finished
from medusa_decoding.serving.text import Text

Brought = Sequence[Event | Failed]


class EventTicket:
    """A job on its way; see `jobs.Ticket`. After `cancel` the iteration ends without `Finished`."""

    def __init__(self, text: Text, loop: asyncio.AbstractEventLoop, on_cancel: Callable[[], None]) -> None:
        self.text = text
        self.loop = loop
        self.cancelled = False
        self._on_cancel = on_cancel
        self._held: list[Event | Failed] = []
        self._brought: asyncio.Queue[Brought] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events as they come."""
        while not self.cancelled:
            for event in await self._brought.get():
                if isinstance(event, Failed):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return

    def cancel(self) -> None:
        """Stop writing."""
        if not self.cancelled:
            self.cancelled = True
            self._on_cancel()
            # Whoever waits for events meanwhile.
            hand_over([(self, [])])

    def due(self, brought: Brought) -> Brought:
        """What is to be told now: all that a step brought, or where nobody looks, nothing before the end.

        In the scheduler's thread: waking the event loop for nothing takes a core from the engine.
        """
        if self.text.job.streamed:
            return brought
        self._held.extend(brought)
        return self._held if isinstance(self._held[-1], Finished | Failed) else []

    def bring(self, brought: Brought) -> None:
        """Take what a step brought; in the event loop."""
        self._brought.put_nowait(brought)


def hand_over(results: Iterable[tuple[EventTicket, Brought]]) -> None:
    """Bring events to their event loops, each of which is woken once. A loop that is closed gets nothing."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[EventTicket, Brought]]] = defaultdict(list)
    for ticket, brought in results:
        by_loop[ticket.loop].append((ticket, brought))
    for loop, found in by_loop.items():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_bring_all, found)


def _bring_all(found: Sequence[tuple[EventTicket, Brought]]) -> None:
    for ticket, brought in found:
        ticket.bring(brought)
