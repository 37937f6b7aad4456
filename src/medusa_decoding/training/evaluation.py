"""How good heads are on positions they were not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.data import Positions
from medusa_decoding.training.loss import IGNORED, chunks_of, projection_of

BATCH = 2048
TOP = (1, 3, 5)


@dataclass(frozen=True)
class Evaluation:
    """Figures per head, of the positions where the head had something to guess.

    losses: (K) mean cross-entropy over tokens in the draft vocabulary. top: k → (K) share of positions where
    the right token is among the head's k likeliest; tokens outside the draft vocabulary are misses.
    tokens_per_step: mean over positions with K tokens to guess of 1 + the length of the right prefix of the
    heads' greedy chain, which is what a step would emit.
    """

    losses: list[float]
    top: dict[int, list[float]]
    tokens_per_step: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for files."""
        figures: dict[str, Any] = {"validation_loss": self.losses}
        figures.update({f"top{k}": shares for k, shares in self.top.items()})
        return {**figures, "tokens_per_step": self.tokens_per_step}


@torch.inference_mode()
def evaluate(heads: MedusaHeads, positions: Positions) -> Evaluation:
    """Accuracy and loss of each head on `positions`, at least one."""
    ranks, losses = _ranks_and_losses(heads, positions)
    asked, inside = positions.labels != IGNORED, positions.labels >= 0
    whole = asked.all(1)
    prefix = (ranks == 0)[whole].long().cumprod(1).sum(1).double()
    return Evaluation(
        losses=_means(losses, inside),
        top={k: _means((ranks < k).double(), asked) for k in TOP},
        tokens_per_step=1.0 + (float(prefix.mean()) if len(prefix) else 0.0),
    )


def features_at(heads: MedusaHeads, positions: Positions, rows: Tensor | slice) -> Tensor:
    """(n, K, D) features of the heads at some positions."""
    hidden = positions.hidden[rows].to(heads.device, heads.dtype)
    roots = heads.embed(positions.roots[rows]) if heads.config.condition == "root" else None
    return heads.features(hidden, roots)


def _ranks_and_losses(heads: MedusaHeads, positions: Positions) -> tuple[Tensor, Tensor]:
    """(N, K) how many tokens the head finds likelier than the right one, and (N, K) cross-entropies.

    Where there is no draft id the rank is beyond any top k, and the cross-entropy 0.
    """
    ranks = torch.full(positions.labels.shape, torch.iinfo(torch.int64).max)
    losses = torch.zeros(positions.labels.shape, dtype=torch.float64)
    for start in range(0, len(positions), BATCH):
        batch = slice(start, start + BATCH)
        features, labels = features_at(heads, positions, batch), positions.labels[batch]
        for head in range(labels.shape[1]):
            chosen = torch.nonzero(labels[:, head] >= 0).flatten()
            for chunk in chunks_of(len(chosen), projection_of(heads, head)[0].shape[0]):
                rows = chosen[chunk]
                logits = _logits(heads, features, head, rows)
                right = logits.gather(1, labels[rows, head, None].to(logits.device))
                ranks[start + rows, head] = (logits > right).sum(1).cpu()
                losses[start + rows, head] = (logits.logsumexp(1) - right[:, 0]).double().cpu()
    return ranks, losses


def _logits(heads: MedusaHeads, features: Tensor, head: int, rows: Tensor) -> Tensor:
    return functional.linear(features[rows, head], *projection_of(heads, head))


def _means(values: Tensor, mask: Tensor) -> list[float]:
    counts = mask.sum(0).clamp_min(1)
    means: list[float] = (values.double().where(mask, 0.0).sum(0) / counts).tolist()
    return means
