"""A progress bar for downloads, on stderr, shown only when the download lasts."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

_PATIENCE_SECONDS = 1.0


class DownloadBar:
    """Counts the bytes of a file that arrives in parts.

    Args:
        name: what is downloaded, for the reader.
        size: bytes of the whole.
        enabled: whether to show anything.
    """

    def __init__(self, name: str, size: int, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._enabled = enabled
        self._started = time.monotonic()
        self._done = 0
        self._size = size
        self._line = f"downloading {name} ({size / 1e6:.0f} MB)"
        self._console = console
        self._shown = False
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(f"downloading {name}", total=size)

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Stopping what never started would print an empty line.
        if self._progress.live.is_started:
            self._progress.stop()

    def show_part(self, size: int) -> None:
        """The part under way has `size` bytes so far."""
        if self._enabled and time.monotonic() - self._started > _PATIENCE_SECONDS:
            self._show(min(self._done + size, self._size))

    def finish_part(self, size: int) -> None:
        """A part of `size` bytes is whole."""
        self._done += size
        self.show_part(0)

    def _show(self, completed: int) -> None:
        if not self._shown:
            self._shown = True
            if self._console.is_terminal:
                self._progress.start()
            else:
                self._console.print(self._line)
        self._progress.update(self._task, completed=completed)
