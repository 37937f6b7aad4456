"""Text from tokens, piece by piece: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol


class TokenStream(Protocol):
    """Incremental detokenisation, see `models.tokenizer`."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that is certain after these tokens."""
        ...

    def flush(self) -> str:
        """What was held back of an unfinished character."""
        ...


class TextAssembler:
    """The text of one sequence while it grows.

    A suffix that may be the beginning of a stop string is held back until it is known not to be.
    """

    def __init__(self, stream: TokenStream, stops: Sequence[str]) -> None:
        self._stream = stream
        self._stops = tuple(stops)
        self._held = ""
        self._ready: deque[str] = deque()
        self._shown: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All text that is ready so far."""
        return "".join(self._shown)

    def push(self, token: int) -> bool:
        """Take one token; true when a stop string is complete. The text then ends before it."""
        self._held += self._stream.push([token])
        start = min((at for stop in self._stops if (at := self._held.find(stop)) >= 0), default=-1)
        if start >= 0:
            self.stopped = True
            self._release(start)
            self._held = ""
        else:
            self._release(len(self._held) - self._suspicious())
        return self.stopped

    def take(self) -> str:
        """The text that became ready with the oldest token not yet taken; empty when there is none."""
        return self._ready.popleft() if self._ready else ""

    def finish(self) -> str:
        """The text still held back at the end, which no stop string claimed."""
        if self.stopped:
            return ""
        # A last unfinished character may complete nothing that is a stop string: flushing cannot stop any
        # more.
        rest = self._held + self._stream.flush()
        self._held = ""
        self._shown.append(rest)
        return rest

    def _release(self, length: int) -> None:
        self._ready.append(self._held[:length])
        self._shown.append(self._held[:length])
        self._held = self._held[length:]

    def _suspicious(self) -> int:
        """Length of the longest suffix of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
