"""A stand-in for the scheduler: no model, but all that the API asks of one.

It writes a set text token by token, or letters that depend on seed and choice, and heeds length, stop
strings, logit bias and masks as the engine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np

from medusa_decoding.decoding import Statistics
from medusa_decoding.generation.text import TextAssembler
from medusa_decoding.models import Tokenizer
from medusa_decoding.serving.jobs import (
    Draining,
    Emitted,
    Event,
    Failed,
    Finished,
    Job,
    Logprob,
    QueueFull,
    Ticket,
    Verified,
)
from medusa_decoding.serving.metrics import Metrics
from medusa_decoding.serving.observer import Progress

REPLY = "Grüße! Tea or coffee?\nBoth, thanks."
FORCED = 50
"""A bias from which on a token wins."""


class FakeTicket:
    """One job on its way."""

    def __init__(self, jobs: FakeJobs, job: Job) -> None:
        self._jobs, self.job = jobs, job
        self.cancelled = False
        self.ended = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        metrics, job = self._jobs.metrics, self.job
        metrics.started(len(job.prompt), 0, 0.0)
        statistics = Statistics(prompt_tokens=len(job.prompt))
        assembler = TextAssembler(self._jobs.tokenizer.stream(), job.options.stop)
        tokens: list[int] = []
        reason = "length"
        while len(tokens) < job.options.max_tokens:
            if self._jobs.fails_after is not None and len(tokens) >= self._jobs.fails_after:
                self._end("failed")
                raise Failed
            await self._jobs.pace()
            if self.cancelled:
                return
            tokens.append(self._next(tokens))
            for event in self._step(tokens, statistics, assembler):
                yield event
            if tokens[-1] in self._jobs.tokenizer.eos_ids or assembler.stopped:
                reason = "stop"
                break
        self._end(reason)
        yield Finished(reason, statistics, assembler.finish(), reused=self._jobs.reused)

    def _step(self, tokens: list[int], statistics: Statistics, assembler: TextAssembler) -> list[Event]:
        """The last token's events. Every second token counts as head 1's guess."""
        token, source = tokens[-1], len(tokens) % 2
        if len(tokens) == 1:
            self._jobs.metrics.first_token(0.01)
        else:
            statistics.count_step([1], [source])
            statistics.decode_seconds += 0.01
            self._jobs.metrics.stepped(2, 0.01, [Progress(1, source, 1, 0.01)])
        if self.job.mask is not None:
            self.job.mask.advance([token])
        assembler.push(token)
        events: list[Event] = []
        if self.job.trees and len(tokens) > 1:
            events.append(Verified((tokens[-2], token), (-1, 0), (1.0, 0.5), (0, 1), (0, 1)))
        return [*events, Emitted(token, assembler.take(), source, self._logprob(token))]

    def _logprob(self, token: int) -> Logprob | None:
        if self.job.logprobs is None:
            return None
        others = [(other, -2.0 - other) for other in range(self.job.logprobs)]
        return Logprob(-0.5, tuple([(token, -0.5), *others][: self.job.logprobs]))

    def _next(self, tokens: Sequence[int]) -> int:
        options = self.job.options
        wanted = self._jobs.reply_ids[len(tokens)] if len(tokens) < len(self._jobs.reply_ids) else None
        if options.temperature > 0 and self._jobs.random:
            random = np.random.default_rng([options.seed, self.job.choice, len(tokens)])
            wanted = (
                int(random.integers(97, 122)) - 33 if self.job.mask is None else int(random.integers(1 << 30))
            )
        forced = [token for token, bias in options.logit_bias.items() if bias >= FORCED]
        wanted = forced[0] if forced else wanted
        if self.job.mask is not None:
            allowed = np.flatnonzero(self.job.mask.allowed([]))
            if wanted not in allowed:
                wanted = int(allowed[(wanted or 0) % len(allowed)])
        return min(self._jobs.tokenizer.eos_ids) if wanted is None else wanted

    def _end(self, how: str) -> None:
        self.ended = True
        self._jobs.metrics.ended(how, started=True)  # type: ignore[arg-type]

    def cancel(self) -> None:
        if not self.cancelled and not self.ended:
            self._end("cancelled")
        self.cancelled = True


class FakeJobs:
    """See above. reply: the text. random: letters by seed and choice instead. fails_after: so many tokens."""

    def __init__(self, tokenizer: Tokenizer, metrics: Metrics) -> None:
        self.tokenizer, self.metrics = tokenizer, metrics
        self.submitted: list[Job] = []
        self.tickets: list[FakeTicket] = []
        self.drained = False
        self.reset()

    def reset(self) -> None:
        """As new."""
        self.reply = REPLY
        self.random = False
        self.seconds_per_token = 0.0
        self.fails_after: int | None = None
        self.full = False
        self.reused = 0
        self.submitted.clear()
        self.tickets.clear()

    @property
    def reply_ids(self) -> list[int]:
        return self.tokenizer.encode(self.reply, special=False)

    async def pace(self) -> None:
        """The time of a step."""
        await asyncio.sleep(self.seconds_per_token)

    def submit(self, jobs: Sequence[Job]) -> list[Ticket]:
        """Take jobs, unless the queue is full."""
        if self.full:
            raise QueueFull(7)
        if self.drained:
            raise Draining
        self.submitted.extend(jobs)
        taken = [FakeTicket(self, job) for job in jobs]
        for _ in taken:
            self.metrics.queued()
        self.tickets.extend(taken)
        return list(taken)

    async def drain(self) -> None:
        """Note it."""
        self.drained = True
