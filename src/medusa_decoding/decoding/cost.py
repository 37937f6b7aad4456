"""What a step costs on this machine, as a planner needs to know it: measured times, and lines between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medusa_decoding.decoding.tree import FloatArray, IntArray


@dataclass(frozen=True)
class StepCost:
    """Milliseconds of a forward pass by its rows and the tokens before them, and of drafting.

    rows: the numbers of rows that were measured, rising from 1. contexts: for each measured number of
    committed tokens, rising, the milliseconds of those passes. drafting: for each measured number of
    sequences, rising from 1, the milliseconds of asking the drafter once. Raises ValueError where they are
    not that.

    >>> cost = StepCost((1, 2, 4), {256: (5.0, 5.2, 5.6), 1256: (6.0, 6.2, 7.6)}, {1: 0.5})
    >>> [round(cost.step(rows, 256), 2) for rows in (1, 3, 6)], round(cost.step(4, 756), 2)
    ([5.0, 5.4, 6.0], 6.6)
    """

    rows: tuple[int, ...]
    contexts: Mapping[int, tuple[float, ...]]
    drafting: Mapping[int, float]

    def __post_init__(self) -> None:
        _check_grid(self.rows, "rows", 1)
        _check_grid(tuple(self.contexts), "contexts", None)
        _check_grid(tuple(self.drafting), "sequences", 1)
        if any(len(times) != len(self.rows) for times in self.contexts.values()):
            raise ValueError("each context needs a time for each number of rows")
        if not (np.isfinite(self._table).all() and (self._table > 0).all()):
            raise ValueError("a pass takes more than 0 milliseconds")
        if not all(np.isfinite(time) and time >= 0 for time in self.drafting.values()):
            raise ValueError("drafting takes 0 milliseconds or more")

    def step(self, rows: int, context: float) -> float:
        """Milliseconds of one forward pass."""
        return float(self.steps(rows, context))

    def steps(self, rows: ArrayLike, context: float) -> FloatArray:
        """Milliseconds of forward passes of each of these numbers of rows.

        Linear between what was measured and, with its last slope, beyond; below the shortest context that was
        measured, as there.
        """
        times, counts = self._at_context(context), np.asarray(rows, np.float64)
        found: FloatArray = np.interp(counts, self._rows, times)
        if len(times) > 1:
            slope = max(0.0, float(times[-1] - times[-2])) / (self.rows[-1] - self.rows[-2])
            found = found + slope * np.maximum(counts - self.rows[-1], 0)
        return found

    def draft(self, sequences: int) -> float:
        """Milliseconds of asking the drafter once, for so many sequences."""
        counts, times = list(self.drafting), list(self.drafting.values())
        if sequences <= counts[-1] or len(counts) < 2:
            return float(np.interp(sequences, counts, times))
        slope = max(0.0, times[-1] - times[-2]) / (counts[-1] - counts[-2])
        return times[-1] + slope * (sequences - counts[-1])

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: numbers of contexts and sequences become text."""
        return {
            "rows": list(self.rows),
            "contexts": {str(context): list(times) for context, times in self.contexts.items()},
            "drafting": {str(count): time for count, time in self.drafting.items()},
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> StepCost:
        """The inverse of `to_dict`. Raises ValueError for anything that `to_dict` cannot have made."""
        try:
            return cls(
                tuple(int(rows) for rows in found["rows"]),
                {int(name): tuple(float(time) for time in row) for name, row in found["contexts"].items()},
                {int(name): float(time) for name, time in found["drafting"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the cost of a step: {error!r}") from None

    @cached_property
    def _rows(self) -> IntArray:
        return np.array(self.rows, np.int64)

    @cached_property
    def _table(self) -> FloatArray:
        """(contexts, rows) milliseconds."""
        return np.array(list(self.contexts.values()), np.float64)

    @cached_property
    def _lengths(self) -> list[int]:
        return list(self.contexts)

    def _at_context(self, context: float) -> FloatArray:
        """(rows,) milliseconds at one context."""
        lengths, table = self._lengths, self._table
        if len(lengths) == 1 or context <= lengths[0]:
            shortest: FloatArray = table[0]
            return shortest
        after = next((place for place, length in enumerate(lengths) if context <= length), len(lengths) - 1)
        share = (context - lengths[after - 1]) / (lengths[after] - lengths[after - 1])
        rise = table[after] - table[after - 1]
        # Noise may make a longer context look cheaper; carried on beyond what was measured, time would end.
        beyond = max(0.0, share - 1) * np.maximum(rise, 0.0)
        times: FloatArray = table[after - 1] + min(share, 1.0) * rise + beyond
        return times


def _check_grid(values: tuple[int, ...], name: str, first: int | None) -> None:
    rising = all(a < b for a, b in pairwise(values))
    if not values or not rising or values[0] < 0 or (first is not None and values[0] != first):
        raise ValueError(f"{name} rise{'' if first is None else f' from {first}'}, but these are {values}")
