"""Which positions each optimiser step sees, as a function of the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medusa_decoding.training.data import Positions

# Consecutive positions that stay together where neighbours share what is computed for them: with 4 heads the
# base model's projection then runs on 19 states for 16 positions. Longer spans would make the positions of a
# step more alike.
SPAN = 16


@dataclass(frozen=True)
class Batch:
    """n = spans · L positions, span by span. Fields as in `Positions`, and

    following: (spans, L + K - 1, D) hidden states of each span's positions from the second on, and of K more.
    """

    hidden: Tensor
    roots: Tensor
    labels: Tensor
    following: Tensor

    def __len__(self) -> int:
        return len(self.roots)


def batch_of(positions: Positions, starts: Tensor, span: int) -> Batch:
    """The spans that begin at rows `starts` (spans,); beyond the last row they go on with the first.

    A row with a label k places on has the state that decided this label's token k rows on.
    """
    num_heads = positions.labels.shape[1]
    rows = (starts[:, None] + torch.arange(span + num_heads)) % len(positions)
    states, own = positions.hidden[rows], rows[:, :span].flatten()
    return Batch(states[:, :span].flatten(0, 1), positions.roots[own], positions.labels[own], states[:, 1:])


class Order:
    """Shuffled spans of positions, anew in each epoch.

    With spans of one position only those that have something to guess are drawn; longer ones are cut from a
    grid that begins at another row in each epoch. What an epoch leaves over after its last whole step is
    dropped; it differs from epoch to epoch.
    """

    def __init__(self, positions: Positions, step_positions: int, span: int, seed: int) -> None:
        """step_positions: of an optimiser step; cut to whole spans, and to what the data has."""
        self.span = min(span, len(positions))
        self._seed, self._total = seed, len(positions)
        self._rows = positions.rows_with_labels() if self.span == 1 else None
        units = self._total // self.span if self._rows is None else len(self._rows)
        self.spans_per_step = max(1, min(step_positions // self.span, units))
        self.steps_per_epoch = units // self.spans_per_step
        self._units = units
        self._epoch: tuple[int, Tensor] | None = None

    @property
    def positions_per_step(self) -> int:
        """Positions that a step sees."""
        return self.spans_per_step * self.span

    def starts(self, step: int) -> Tensor:
        """(spans,) the first rows of a step's spans, steps counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._shuffled(epoch)
        return self._epoch[1][place * self.spans_per_step : (place + 1) * self.spans_per_step]

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(self._units, generator=generator)
        if self._rows is not None:
            return self._rows[order]
        first = torch.randint(self.span, (1,), generator=generator)
        return (order * self.span + first) % self._total
