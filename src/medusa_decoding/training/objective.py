"""What training minimises: the loss of heads on a batch, with the settings' targets and types."""

from __future__ import annotations

import torch
from torch import Tensor

from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.batches import SPAN, Batch, batch_of
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.data import Positions
from medusa_decoding.training.evaluation import BATCH
from medusa_decoding.training.hidden import SharedWeights
from medusa_decoding.training.loss import medusa_loss, projections
from medusa_decoding.training.targets import Labels, Targets, Teacher


class Objective:
    """Σ λᵏ·L_k with cross-entropy or KL divergence, whose products are computed as `dtype`."""

    def __init__(
        self, config: TrainingConfig, heads: MedusaHeads, base: SharedWeights, dtype: torch.dtype
    ) -> None:
        self.heads, self.dtype, self.decay = heads, dtype, config.loss_decay
        # The frozen projection is cast once; the heads' own change with every step.
        self._shared = None if heads.projection is not None else projections(heads, dtype)
        self._teacher = None
        if config.loss == "kl":
            drafted = base.drafted(heads.token_map, heads.device, dtype)
            lm_head = drafted.lm_head if self._shared is None else self._shared
            self._teacher = lm_head, drafted.bias
        self.span = 1 if self._teacher is None else SPAN

    def loss(self, batch: Batch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the L_k (K,), whose sums over the batch's rows are divided by `counts` (K,)."""
        heads = self.heads
        hidden = batch.hidden.to(heads.device).to(heads.dtype)
        roots = heads.embed(batch.roots) if heads.config.condition == "root" else None
        with torch.autocast(heads.device.type, self.dtype, enabled=self.dtype != heads.dtype):
            features = heads.features(hidden, roots).to(heads.dtype)
        labels = batch.labels.to(heads.device)
        return medusa_loss(
            heads,
            features,
            labels,
            self.decay,
            targets=self._targets(batch, labels),
            counts=counts.to(heads.device),
            weight=projections(heads, self.dtype) if self._shared is None else self._shared,
        )

    @torch.no_grad()
    def mean_losses(self, positions: Positions) -> list[float]:
        """The K mean losses over `positions`, less those that fill no whole span."""
        span = min(self.span, len(positions))
        starts = torch.arange(0, len(positions) - span + 1, span)
        counts = (positions.labels[: len(starts) * span] >= 0).sum(0)
        total = torch.zeros(len(counts), dtype=torch.float64)
        for part in starts.split(max(1, BATCH // span)):
            total += self.loss(batch_of(positions, part, span), counts)[1].double().cpu()
        losses: list[float] = total.tolist()
        return losses

    def weighted(self, losses: list[float]) -> float:
        """Σ λᵏ·L_k of K losses."""
        return sum(self.decay**head * one for head, one in enumerate(losses, 1))

    def _targets(self, batch: Batch, labels: Tensor) -> Targets:
        if self._teacher is None:
            return Labels(labels)
        states = batch.following.to(self.heads.device).to(self.dtype)
        return Teacher(states, labels.shape[1], *self._teacher)
