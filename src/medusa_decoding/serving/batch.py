"""The texts that are written at once, and everything that only the engine's thread may touch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from medusa_decoding.decoding import Decoder, Step
from medusa_decoding.decoding.sequence import common_length
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.serving.faults import log
from medusa_decoding.serving.jobs import Event, Failed, Unsupported
from medusa_decoding.serving.memory import KvMemory
from medusa_decoding.serving.observer import Ending, Observer
from medusa_decoding.serving.pace import Pace
from medusa_decoding.serving.prefixes import BLOCK, KeptPrefixes
from medusa_decoding.serving.settings import SchedulerSettings
from medusa_decoding.serving.text import Text

LEAST_CONTEXT = 2
"""A token to read and one to write."""
Admission = Literal["begun", "later", "full"]
"""A text runs; it waits until another has read what both begin with; there is no room."""


class Batch:
    """Texts side by side on one engine: one forward pass is a step of all of them.

    context_length: the most tokens of prompt and text together; no more than memory has room for.
    """

    def __init__(self, medusa: Medusa, settings: SchedulerSettings, observer: Observer) -> None:
        self._medusa = medusa
        self._settings = settings
        self._observer = observer
        self.running: list[Text] = []
        self._memory = KvMemory(medusa.engine, settings.kv_memory)
        most = min(medusa.context_length, settings.context or medusa.context_length)
        self.context_length = self._memory.longest(most)
        if self.context_length < LEAST_CONTEXT:
            raise UserError(
                f"keys and values of {self.context_length} tokens fit into memory: "
                f"at least {LEAST_CONTEXT} are needed, so give them more"
            )
        self.kept = KeptPrefixes(medusa.engine, settings.prefix_tokens)
        self._decoder = Decoder(
            medusa.engine,
            medusa.drafter,
            medusa.planner,
            medusa.acceptance,
            lookup=medusa.lookup,
            isolates=True,
        )
        self._pace = Pace(settings.prefill_rows)

    def admit(self, text: Text) -> Admission:
        """Let a text run if there is room. Raises UserError or ValueError for one that never can."""
        text.prepare(self._medusa, self.context_length)
        if len(self.running) >= self._settings.max_sequences or not self._has_room(text):
            return "full"
        origin = self._origin(text.sequence.prompt)
        if origin is None:
            return "later"
        text.begin(*origin)
        self.running.append(text)
        self._observer.started(len(text.sequence.prompt), text.reused, text.started - text.taken)
        return "begun"

    def step(self) -> list[tuple[Text, list[Event | Failed]]]:
        """One forward pass; what it brought each text. Those that ended are no longer running."""
        begun = time.monotonic()
        self._decoder.prefill_budget = self._pace.rows
        steps = self._steps()
        passed = time.monotonic() - begun
        self._pace.note(sum(step.rows for step in steps if step.tree is None), passed)
        texts = {id(text.sequence): text for text in self.running}
        brought: list[tuple[Text, list[Event | Failed]]] = []
        for step in steps:
            text = texts[id(step.sequence)]
            # The text's own characters may fail, too.
            with text.sequence.faults(isolate=True):
                if events := list[Event | Failed](text.events(step)):
                    brought.append((text, events))
        self._tell(steps, passed, texts)
        for text in list(self.running):
            if (error := text.sequence.error) is not None:
                log.error("a text failed: %s", type(error).__name__)
                unknown = Failed("the engine failed on this text")
                brought.append((text, [error if isinstance(error, Unsupported) else unknown]))
                self.end(text, "failed")
            elif text.sequence.finish_reason is not None:
                self.end(text, text.sequence.finish_reason)
        return brought

    def end(self, text: Text, ending: Ending) -> None:
        """Take a text out, and keep or free its keys and values."""
        self.running.remove(text)
        handle, text.sequence.handle = text.sequence.handle, None
        if handle is not None:
            if ending == "failed":
                self._medusa.engine.close(handle)
            else:
                self.kept.keep(handle, text.held)
        self._observer.ended(ending, started=True)

    def _has_room(self, text: Text) -> bool:
        """Whether keys and values fit; what is kept of finished texts makes way."""
        reserved = [one.reach for one in [*self.running, text]]
        while not self._memory.fits([*reserved, *self.kept.lengths]):
            if not self.kept.evict():
                return False
        return True

    def _origin(self, prompt: Sequence[int]) -> tuple[int | None, int] | None:
        """A new sequence that holds the beginning of a prompt, and how much of it; (None, 0) where nobody has
        read it; None where another text is just reading more of it.
        """
        engine = self._medusa.engine
        if not hasattr(engine, "fork"):
            return None, 0
        kept, length = self.kept.find(prompt)
        source, promised = kept, 0
        running: Text | None = None
        for other in self.running:
            shared = common_length(other.sequence.prompt, prompt[:-1])
            read = min(shared, other.sequence.committed)
            if read >= max(BLOCK, length + 1):
                running, length = other, read
            if not other.sequence.tokens:
                promised = max(promised, shared)
        if promised - length >= BLOCK:
            return None
        if running is not None and running.sequence.handle is not None:
            return int(engine.fork(running.sequence.handle, length)), length
        return (None, 0) if source is None else (self.kept.fork(source, length), length)

    def _steps(self) -> list[Step]:
        """One pass of all texts; where it fails, of each by itself: one does not take others along."""
        sequences = [text.sequence for text in self.running]
        before = [(sequence.committed, len(sequence.tokens)) for sequence in sequences]
        try:
            return self._decoder.step(sequences)
        except Exception as error:
            log.warning("a step failed (%s): trying its texts one by one", type(error).__name__)
            failure = error
        steps: list[Step] = []
        for sequence, (committed, tokens) in zip(sequences, before, strict=True):
            # Where the pass failed halfway, or cannot be done twice, there is no way back.
            if (sequence.committed, len(sequence.tokens)) != (committed, tokens) or not self._repeats:
                sequence.error = failure
                continue
            with sequence.faults(isolate=True):
                steps += self._decoder.step([sequence])
        return steps

    @property
    def _repeats(self) -> bool:
        """Whether a failed pass may be tried again: an engine without trees keeps rows as they are run."""
        return bool(getattr(self._medusa.engine, "verifies_trees", True))

    def _tell(self, steps: Sequence[Step], seconds: float, texts: dict[int, Text]) -> None:
        """Tell the observer of a pass."""
        progress = []
        for step in steps:
            text = texts[id(step.sequence)]
            if step.tree is None and step.tokens:
                self._observer.first_token(text.first_token())
            elif (one := text.progress(step)) is not None:
                progress.append(one)
        if steps:
            self._observer.stepped(sum(step.rows for step in steps), seconds, progress)
