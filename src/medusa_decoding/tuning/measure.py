"""Measure forward passes and drafting on this machine.

Passes are timed in rounds, each through all numbers of rows, up and down in turn, so that a busy moment of
the machine hits all of them alike; then the medians count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from medusa_decoding.decoding import Drafter, Engine, StepCost
from medusa_decoding.errors import UserError
from medusa_decoding.tuning.machine import waited_seconds, weight_bytes_of
from medusa_decoding.tuning.profile import Profile
from medusa_decoding.tuning.trial import DEPTH, Trial

Progress = Callable[[float, str], None]
"""Told how much is done, from 0 to 1, and what is being measured."""

COARSE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""The numbers of rows where a pass of one takes longer than SLOW_SECONDS."""
SLOW_SECONDS = 0.02
NEWS = 1.25
"""How much longer than the one before a context is at least, to be worth measuring."""
DRAFTED_TOGETHER = (1, 4)
"""The numbers of sequences for which drafting is timed."""


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    rows, contexts: rising. rounds: for each context, at most. seconds: for all; after its share of them a
    context gets no further round, and no context is begun that would exceed them, except the first.
    """

    rows: tuple[int, ...]
    contexts: tuple[int, ...]
    rounds: int
    seconds: float


FULL = Effort(tuple(range(1, 33)), (256, 2048, 8192), rounds=15, seconds=120.0)
QUICK = Effort((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32), (256, 1024), rounds=5, seconds=2.5)


def measure(
    engine: Engine, drafter: Drafter | None = None, effort: Effort = FULL, progress: Progress | None = None
) -> Profile:
    """Measure an engine that verifies trees, and a drafter with it.

    Contexts that do not fit the model or the memory, or would take too long, are left out. Raises UserError
    where the memory does not do for the first one.
    """
    contexts = fitting(effort.contexts, engine.context_length)
    run = _Run(engine, drafter, effort, progress or (lambda *_: None), len(contexts))
    try:
        for place, context in enumerate(contexts):
            if place and run.would_exceed(context):
                break
            run.measure(place, context)
    except (MemoryError, RuntimeError) as error:
        if not _is_about_memory(error):
            raise
        if not run.passes:
            raise UserError("too little memory to measure this model: close other programs") from None
    finally:
        run.trial.close()
    return run.profile(weight_bytes_of(engine))


def fitting(contexts: tuple[int, ...], length: int) -> list[int]:
    """The contexts that leave room for a tree in a model's context of `length`.

    In place of the first that does not, the longest that does, unless it tells hardly more.
    """
    room = max(1, length - DEPTH - 1)
    found = [context for context in contexts if context <= room]
    if len(found) < len(contexts) and room >= NEWS * (found[-1] if found else 0):
        found.append(room)
    return found


class _Run:
    """One measurement. passes: seconds by context and rows, of contexts that were measured to the end."""

    def __init__(
        self, engine: Engine, drafter: Drafter | None, effort: Effort, progress: Progress, contexts: int
    ) -> None:
        self.trial = Trial(engine, drafter)
        self.passes: dict[int, dict[int, list[float]]] = {}
        self._drafting: dict[int, list[float]] = {
            count: [] for count in DRAFTED_TOGETHER if drafter is not None
        }
        self._bandwidths: list[float] = []
        self._bandwidth: Callable[[], float] | None = getattr(engine, "read_bandwidth", None)
        self._rows = effort.rows
        self._token = 0.0
        self._effort, self._progress, self._contexts = effort, progress, contexts
        self._started, self._waited = time.perf_counter(), waited_seconds()

    def measure(self, place: int, context: int) -> None:
        """The rounds at one context, the one at `place` in the list."""
        what, share = f"{context} tokens of context", self._effort.seconds / self._contexts
        self._progress(place / self._contexts, what)
        self._token = self.trial.fill(context)
        # The first pass may have to prepare something.
        self.trial.step(1)
        if not place and min(self.trial.step(1) for _ in range(3)) > SLOW_SECONDS:
            self._rows = tuple(rows for rows in COARSE if rows <= self._effort.rows[-1])
        found: dict[int, list[float]] = {rows: [] for rows in self._rows}
        for index in range(self._effort.rounds):
            if index and self._elapsed() > share * (place + 1):
                break
            self._progress((place + index / self._effort.rounds) / self._contexts, what)
            self._round(found, upwards=index % 2 == 0, drafts=not place)
        self.passes[context] = found

    def would_exceed(self, context: int) -> bool:
        """Whether a longer context would take too long; attention makes it slower than the last one."""
        last, times = next(reversed(self.passes.items()))
        one_round = sum(median(found) for found in times.values())
        forecast = 1.5 * ((context - last) * self._token + one_round)
        return self._elapsed() + forecast > self._effort.seconds

    def profile(self, weight_bytes: int | None) -> Profile:
        """The medians."""
        contexts = {
            context: tuple(_milliseconds(found) for found in times.values())
            for context, times in self.passes.items()
        }
        drafting = {count: _milliseconds(found) for count, found in self._drafting.items()}
        measured = StepCost(self._rows, contexts, drafting or {1: 0.0})
        bandwidth = median(self._bandwidths) if self._bandwidths else None
        waiting = round(max(0.0, waited_seconds() - self._waited) / self._elapsed(), 3)
        return Profile(
            measured, bool(drafting), weight_bytes, bandwidth, waiting, quick=self._effort is not FULL
        )

    def _round(self, found: dict[int, list[float]], *, upwards: bool, drafts: bool) -> None:
        for rows in found if upwards else reversed(found):
            found[rows].append(self.trial.step(rows))
        # After a pass, because decoding too finds the heads' weights gone from the caches; and after the
        # shortest context, since long ones leave less of them there than most texts do.
        for count, times in self._drafting.items() if drafts else ():
            self.trial.step(1)
            times.append(self.trial.draft(count))
        if self._bandwidth is not None:
            self._bandwidths.append(self._bandwidth())

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started


def _milliseconds(seconds: list[float]) -> float:
    return round(1000 * median(seconds), 4)


def _is_about_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error).lower()
