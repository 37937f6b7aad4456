"""How much of the prompts a step reads, so that nobody waits long for it."""

from __future__ import annotations

STEPS = 4
"""A step that reads prompts takes about as long as so many that do not."""
LEAST = 32
"""Rows that are read in any case: fewer would cost nearly as much."""
SHARE = 0.3
"""Of the newest step in the running means: a row costs more with every token before it."""


class Pace:
    """Rows of prompts for the next step, at most `most`, by what the last ones took.

    What a row costs depends on model, machine and the length of what is before it, so it is measured as it
    goes: the time of a step beyond that of one without prompts, over its rows.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._step: float | None = None
        self._row: float | None = None

    @property
    def rows(self) -> int:
        """At least 32, if `most` allows."""
        if self._step is None or not self._row:
            return self._most
        return min(self._most, max(LEAST, int((STEPS - 1) * self._step / self._row)))

    def note(self, prompt_rows: int, seconds: float) -> None:
        """A step read so many rows of prompts and took so long."""
        if prompt_rows == 0:
            self._step = _mean(self._step, seconds)
        elif self._step is not None:
            self._row = _mean(self._row, max(0.0, seconds - self._step) / prompt_rows)


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + SHARE * (new - before)
