"""The scheduler: jobs from the event loop to the engine's thread, events back (see `jobs.Jobs`).

All of the engine's work happens in one thread: it admits waiting texts, runs one step of all that run, hands
over what came of it, and begins anew. The event loop never waits for it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.serving.batch import Batch
from medusa_decoding.serving.faults import log, note_fault
from medusa_decoding.serving.jobs import Draining, Failed, Job, QueueFull, Ticket
from medusa_decoding.serving.observer import NoObserver, Observer
from medusa_decoding.serving.settings import SchedulerSettings
from medusa_decoding.serving.text import Text
from medusa_decoding.serving.tickets import EventTicket, hand_over

LONGEST_RETRY = 60
"""Seconds that a client is asked to wait at most."""


class Scheduler:
    """Writes many texts at once; see `jobs.Jobs`. Use it as a context, or call `close` at the end.

    The model belongs to it meanwhile: nobody else may decode with it.
    """

    def __init__(
        self, medusa: Medusa, settings: SchedulerSettings | None = None, observer: Observer | None = None
    ) -> None:
        self.settings = settings or SchedulerSettings()
        self._observer = observer or NoObserver()
        self._batch = Batch(medusa, self.settings, self._observer)
        self._waiting: deque[EventTicket] = deque()
        self._running: dict[Text, EventTicket] = {}
        self._idle: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._draining = self._closing = False
        self._mean_seconds = 1.0
        # Guards all of the above; the batch is the thread's own.
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="medusa-engine", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """The most tokens of prompt and text together: the model's, the settings' or what memory has room
        for, whichever is least.
        """
        return self._batch.context_length

    @property
    def capacity(self) -> int:
        """The most jobs that can be taken at once, by a scheduler that has nothing else to do."""
        return self.settings.max_sequences + self.settings.max_queue

    def submit(self, jobs: Sequence[Job]) -> list[Ticket]:
        """See `jobs.Jobs`. More jobs than `capacity` are never taken."""
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._draining or self._closing:
                raise Draining("the server is shutting down")
            taken = len(self._waiting) + len(self._running)
            if taken + len(jobs) > self.capacity:
                raise QueueFull(self._retry_after())
            tickets = [EventTicket(Text(job), loop, self._cancel) for job in jobs]
            for _ in tickets:
                self._observer.queued()
            self._waiting.extend(tickets)
            self._changed.notify()
        return list(tickets)

    async def drain(self) -> None:
        """See `jobs.Jobs`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._changed:
            self._draining = True
            self._idle.append((loop, done))
            self._changed.notify()
        await done

    def close(self) -> None:
        """Give up whatever is not done, and end the thread. May be called again."""
        with self._changed:
            self._draining = self._closing = True
            # Under the lock, so that the thread does not end before it knows of them.
            for ticket in [*self._waiting, *self._running.values()]:
                ticket.cancel()
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _retry_after(self) -> int:
        """Seconds until a place in the queue should be free, by how long texts took lately."""
        turns = (len(self._waiting) + 1) / self.settings.max_sequences
        return min(LONGEST_RETRY, max(1, math.ceil(turns * self._mean_seconds)))

    def _cancel(self) -> None:
        """Some ticket was cancelled: the thread looks which."""
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        """The thread's life."""
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._idle or self._closing):
                    self._changed.wait()
                self._drop_cancelled()
                if self._closing:
                    break
            try:
                self._admit()
                self._step()
            except Exception as error:
                # Nobody expects this; those who wait must not wait for ever.
                note_fault(error)
                self._give_up()
            self._tell_idle()
        self._batch.kept.clear()
        self._tell_idle()

    def _drop_cancelled(self) -> None:
        """Forget waiting texts that nobody waits for, and end running ones."""
        for ticket in [ticket for ticket in self._waiting if ticket.cancelled]:
            self._waiting.remove(ticket)
            self._observer.ended("cancelled", started=False)
        for text in [text for text, ticket in self._running.items() if ticket.cancelled]:
            del self._running[text]
            self._batch.end(text, "cancelled")

    def _admit(self) -> None:
        """Let waiting texts run, in their order, as far as there is room.

        One that waits for another to read their common beginning lets others pass.
        """
        for ticket in list(self._waiting):
            try:
                admission = self._batch.admit(ticket.text)
            except (UserError, ValueError, MemoryError) as error:
                log.error("a text was refused: %s", type(error).__name__)
                self._refuse(ticket)
                continue
            if admission == "full":
                break
            if admission == "begun":
                with self._changed:
                    self._waiting.remove(ticket)
                    self._running[ticket.text] = ticket

    def _refuse(self, ticket: EventTicket) -> None:
        with self._changed:
            self._waiting.remove(ticket)
        self._observer.ended("failed", started=False)
        hand_over([(ticket, [Failed("the engine cannot write this text")])])

    def _step(self) -> None:
        """One step of all running texts; what it brought goes to who waits for it."""
        if not self._batch.running:
            return
        brought = self._batch.step()
        tickets = ((self._running[text], events) for text, events in brought)
        hand_over([(ticket, due) for ticket, events in tickets if (due := ticket.due(events))])
        still = set(self._batch.running)
        with self._changed:
            for text in [text for text in self._running if text not in still]:
                del self._running[text]
                passed = time.monotonic() - text.started
                self._mean_seconds += 0.1 * (passed - self._mean_seconds)

    def _give_up(self) -> None:
        """Let all running texts fail."""
        with self._changed:
            tickets = list(self._running.values())
            self._running.clear()
        for text in list(self._batch.running):
            self._batch.end(text, "failed")
        hand_over([(ticket, [Failed("the scheduler failed")]) for ticket in tickets])

    def _tell_idle(self) -> None:
        """Tell those who wait for the end that all is done."""
        with self._changed:
            if self._waiting or self._running:
                return
            idle, self._idle = self._idle, []
        for loop, done in idle:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, done)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
