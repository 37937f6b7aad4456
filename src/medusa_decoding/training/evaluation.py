"""How good heads are on positions they were not trained on, and how sure of themselves they should be."""

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
# Temperatures tried by `calibrate`, and the most positions it looks at per head.
TEMPERATURES = tuple(2 ** (step / 8) for step in range(-8, 17))
CALIBRATION_ROWS = 4096


@dataclass(frozen=True)
class Evaluation:
    """Figures per head, of the positions where the head had something to guess.

    losses: (K) mean cross-entropy over tokens in the draft vocabulary. top: k → (K) share of positions where
    the right token is among the head's k likeliest; tokens outside the draft vocabulary are misses.
    tokens_per_step: mean over positions with K tokens to guess of 1 + the length of the right prefix of the
    heads' greedy chain, which is what a step would emit. correct: (N, K) whether the likeliest is right.
    """

    losses: list[float]
    top: dict[int, list[float]]
    tokens_per_step: float
    correct: Tensor

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for files."""
        figures: dict[str, Any] = {"validation_loss": self.losses}
        figures.update({f"top{k}": shares for k, shares in self.top.items()})
        return {**figures, "tokens_per_step": self.tokens_per_step}


@dataclass(frozen=True)
class Calibration:
    """One head's temperature, and what it changes on the positions it was fitted on.

    nll: mean negative log-likelihood, confidence: mean probability of the likeliest token, each before and
    after; accuracy: how often that token was right.
    """

    temperature: float
    rows: int
    nll: list[float]
    confidence: list[float]
    accuracy: float


@torch.inference_mode()
def evaluate(heads: MedusaHeads, positions: Positions) -> Evaluation:
    """Accuracy and loss of each head on `positions`, at least one."""
    ranks, losses = _ranks_and_losses(heads, positions)
    asked, inside = positions.labels != IGNORED, positions.labels >= 0
    correct = ranks == 0
    whole = asked.all(1)
    prefix = correct[whole].long().cumprod(1).sum(1).double()
    return Evaluation(
        losses=_means(losses, inside),
        top={k: _means((ranks < k).double(), asked) for k in TOP},
        tokens_per_step=1.0 + (float(prefix.mean()) if len(prefix) else 0.0),
        correct=correct,
    )


@torch.inference_mode()
def calibrate(heads: MedusaHeads, positions: Positions, correct: Tensor) -> list[Calibration]:
    """Fit one temperature per head where the heads before it guessed right.

    There the head's guess decides whether a path goes on, so there its probabilities have to be true; a
    product of probabilities fitted on all positions would not be a path's probability.
    """
    before = torch.cat([torch.ones_like(correct[:, :1]), correct.long().cumprod(1)[:, :-1].bool()], 1)
    fitted = []
    for head in range(positions.labels.shape[1]):
        rows = torch.nonzero(before[:, head] & (positions.labels[:, head] != IGNORED)).flatten()
        # Evenly spread instead of drawn: nothing to seed.
        stride = max(1, -(-len(rows) // CALIBRATION_ROWS))
        fitted.append(_fit(heads, positions, head, rows[::stride]))
    return fitted


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


def _fit(heads: MedusaHeads, positions: Positions, head: int, rows: Tensor) -> Calibration:
    """The temperature with the least total cross-entropy on `rows`; 1 where there is nothing to fit it on."""
    nll = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    confidence = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    right, inside = 0, 0
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        labels = positions.labels[part, head].to(heads.device)
        known = labels >= 0
        logits = functional.linear(features_at(heads, positions, part)[:, head], *projection_of(heads, head))
        right += int((logits.argmax(1) == labels).sum())
        inside += int(known.sum())
        for place, temperature in enumerate(TEMPERATURES):
            scaled = (logits / temperature).log_softmax(1)
            confidence[place] += float(scaled.amax(1).exp().sum())
            nll[place] -= float(scaled[known].gather(1, labels[known, None]).sum())
    unscaled = TEMPERATURES.index(1.0)
    best = int(nll.argmin()) if inside else unscaled
    count, inside = max(1, len(rows)), max(1, inside)
    return Calibration(
        temperature=TEMPERATURES[best],
        rows=len(rows),
        nll=[float(nll[place]) / inside for place in (unscaled, best)],
        confidence=[float(confidence[place]) / count for place in (unscaled, best)],
        accuracy=right / count,
    )
