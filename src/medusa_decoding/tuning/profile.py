"""What was measured of a machine with one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medusa_decoding.decoding import StepCost

MOST_WAITING = 0.2
"""Beyond this share of waiting, other programs decided the figures."""


@dataclass(frozen=True)
class Profile:
    """Medians of forward passes, and what bounds them.

    measured: as they came. drafts: whether there were heads to measure. weight_bytes: what one pass reads of
    the weights; None where the engine does not tell. read_bandwidth_gb_s: how fast this machine reads them,
    in 10^9 bytes a second, in the same run. waiting: seconds in which threads
    stood ready without a processor, per second of measuring; 0 on a quiet machine. quick: made in passing,
    with few repetitions.
    """

    measured: StepCost
    drafts: bool
    weight_bytes: int | None
    read_bandwidth_gb_s: float | None
    waiting: float
    quick: bool

    @property
    def cost(self) -> StepCost:
        """What a planner should believe: more rows or a longer context never cost less.

        Where they seemed to, that was noise, which a planner would chase.
        """
        smooth: dict[int, tuple[float, ...]] = {}
        before = (0.0,) * len(self.measured.rows)
        for context, times in self.measured.contexts.items():
            before = tuple(max(pair) for pair in zip(before, rising(times), strict=True))
            smooth[context] = before
        return StepCost(self.measured.rows, smooth, self.measured.drafting)

    @property
    def is_quiet(self) -> bool:
        """False where the machine was so busy that the figures may be far off."""
        return self.waiting <= MOST_WAITING

    @property
    def bandwidth_bound_ms(self) -> float | None:
        """Milliseconds in which this machine reads the weights once: no pass of one row can be faster."""
        if self.weight_bytes is None or not self.read_bandwidth_gb_s:
            return None
        return self.weight_bytes / self.read_bandwidth_gb_s / 1e6

    def report(self) -> dict[str, Any]:
        """The figures for `--json`; rows and milliseconds are those of the shortest context."""
        contexts = {str(context): list(times) for context, times in self.measured.contexts.items()}
        return {
            "rows": list(self.measured.rows),
            "milliseconds": next(iter(contexts.values())),
            "contexts": contexts,
            "draft_milliseconds": self.measured.draft(1) if self.drafts else None,
            "weight_bytes": self.weight_bytes,
            "read_bandwidth_gb_s": self.read_bandwidth_gb_s,
            "bandwidth_bound_ms": self.bandwidth_bound_ms,
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "measured": self.measured.to_dict()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Profile:
        """The inverse of `to_dict`. Raises ValueError for anything else."""
        try:
            return cls(**{**found, "measured": StepCost.from_dict(found["measured"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a profile: {error!r}") from None


def rising(times: Sequence[float]) -> list[float]:
    """The rising numbers that lie closest to these: runs that fall are levelled at their mean.

    >>> rising([5.0, 5.5, 5.25, 6.0])
    [5.0, 5.375, 5.375, 6.0]
    """
    runs: list[tuple[float, int]] = []
    for time in times:
        run = (time, 1)
        while runs and runs[-1][0] > run[0]:
            mean, size = runs.pop()
            run = ((mean * size + run[0] * run[1]) / (size + run[1]), size + run[1])
        runs.append(run)
    return [mean for mean, size in runs for _ in range(size)]
