"""One job's text while it waits and runs: its sequence, and the events that come of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq

from medusa_decoding.decoding import Sequence, Step
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.text import TextAssembler
from medusa_decoding.serving.jobs import Emitted, Event, Finished, Job, Logprob, Speculation, Verified
from medusa_decoding.serving.observer import Progress


class Text:
    """A job on its way. Made when it is taken; `begin` when it is its turn.

    reused: prompt tokens that need not be read. Times are in seconds of the clock `time.monotonic`.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sequence = Sequence(
            list(job.prompt),
            choice=job.choice,
            mask=job.mask,
            rows=_rows(job.speculation),
            logprobs=job.logprobs,
        )
        self._assembler: TextAssembler | None = None
        self.taken = time.monotonic()
        self.started = self._last = self.taken
        self.reused = 0

    @property
    def reach(self) -> int:
        """The most tokens that it can come to hold; known once it is prepared."""
        return len(self.sequence.prompt) + self.sequence.max_tokens

    @property
    def held(self) -> list[int]:
        """The tokens whose keys and values the engine holds."""
        sequence = self.sequence
        return [*sequence.prompt, *sequence.tokens][: sequence.committed]

    def prepare(self, medusa: Medusa, context: int) -> None:
        """Set what the job asks for, once.

        Raises UserError, or ValueError where the prompt leaves no room.
        """
        if self._assembler is not None:
            return
        assembler = medusa.prepare(self.sequence, self.job.options)
        room = context - len(self.sequence.prompt)
        if room < 1:
            raise ValueError("the prompt leaves no room in the context")
        self.sequence.max_tokens = min(self.sequence.max_tokens, room)
        self._assembler = assembler

    def begin(self, handle: int | None, reused: int) -> None:
        """Begin with a sequence that holds `reused` tokens of the prompt already."""
        self.sequence.handle, self.sequence.committed = handle, reused
        self.sequence.statistics.cached_tokens = self.reused = reused
        self.started = time.monotonic()

    def events(self, step: Step) -> Iterator[Event]:
        """What a step brought, the end of the text included."""
        assert self._assembler is not None
        if self.job.trees and step.tree is not None:
            tree = step.tree
            yield Verified(
                tuple(tree.tokens.tolist()),
                tuple(tree.parents.tolist()),
                tuple(tree.probabilities.tolist()),
                tuple(tree.sources.tolist()),
                tuple(step.path),
            )
        logprobs: Seq[Logprob | None] = step.logprobs or [None] * len(step.tokens)
        for token, source, logprob in zip(step.tokens, step.sources, logprobs, strict=True):
            yield Emitted(token, self._assembler.take(), source, logprob)
        if self.sequence.finish_reason is not None:
            rest = self._assembler.finish()
            yield Finished(self.sequence.finish_reason, self.sequence.statistics, rest, self.reused)

    def progress(self, step: Step) -> Progress | None:
        """A step's figures; None while the prompt is read."""
        if step.tree is None:
            return None
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return Progress(len(step.tree) - 1, step.guessed, len(step.tokens), passed)

    def first_token(self) -> float:
        """Note that the first token is there; how long after the job was taken."""
        self._last = time.monotonic()
        return self._last - self.taken


def _rows(speculation: Speculation) -> int | None:
    """Of the draft tree; None where the planner decides."""
    if isinstance(speculation, int):
        return max(1, speculation)
    return 1 if speculation == "off" else None
