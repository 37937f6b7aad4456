"""Progress of a long job on stderr: a bar on a terminal, a line twice a minute in a log."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_SECONDS = 30.0


class JobProgress:
    """Counts `total` units of work and shows speed and time left.

    name: what is done. tokens and units are counted from this run's start; `done` units were there before.
    """

    def __init__(self, name: str, total: int, *, done: int = 0, enabled: bool = True) -> None:
        self._name, self._total, self._first, self._done = name, total, done, done
        self._enabled = enabled
        self._tokens = 0
        self._note = ""
        self._started = self._printed = time.monotonic()
        self.console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, figures="")

    def __enter__(self) -> JobProgress:
        if self._enabled and self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A bar that never began would leave an empty line.
        if self._bar.live.is_started:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return time.monotonic() - self._started

    @property
    def tokens_per_second(self) -> float:
        """Mean over this run."""
        return self._tokens / max(self.seconds, 1e-9)

    def advance(self, units: int, tokens: int, note: str = "") -> None:
        """`units` and `tokens` more are done; `note` is shown with the figures."""
        self._done += units
        self._tokens += tokens
        self._note = note or self._note
        if not self._enabled:
            return
        if self.console.is_terminal:
            self._bar.update(self._task, completed=self._done, figures=self._figures())
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            self.say(f"{self._name} {self._done}/{self._total} {self._figures()}")

    def say(self, text: str) -> None:
        """Print one line, if anything is shown."""
        if self._enabled:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _figures(self) -> str:
        rate = (self._done - self._first) / max(self.seconds, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / rate)) if rate else "?"
        return f"{self._note}{' · ' if self._note else ''}{self.tokens_per_second:.0f} tokens/s · {left} left"
