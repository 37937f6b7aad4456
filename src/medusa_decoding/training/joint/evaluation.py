"""What joint training did to the base model, and what to the heads, on texts kept from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.data import Positions
from medusa_decoding.training.hidden import answer_states, padded_batches
from medusa_decoding.training.joint.adapters import TrainableBase
from medusa_decoding.training.joint.loss import Projection, Targets
from medusa_decoding.training.loss import chunks_of


@dataclass(frozen=True)
class BaseChange:
    """How far a base model is from what it was, on the tokens of held-out answers.

    perplexity, original_perplexity: of the answers under the model and under the original. kl: mean over
    positions of KL(original ‖ model), in nats. agreement: how often both find the same token likeliest.
    """

    perplexity: float
    original_perplexity: float
    kl: float
    agreement: float
    positions: int


@dataclass
class _Sums:
    """Over the positions seen."""

    values: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    positions: int = 0

    def add(self, said: Tensor, wanted: Tensor, tokens: Tensor) -> None:
        """Log-probabilities (m, V) of model and original, and the answers' tokens (m,)."""
        right = tokens[:, None].to(said.device)
        each = (
            -said.gather(1, right).sum(),
            -wanted.gather(1, right).sum(),
            torch.sum(wanted.exp() * (wanted - said)),
            (said.argmax(1) == wanted.argmax(1)).sum(),
        )
        self.values += torch.tensor([float(one) for one in each], dtype=torch.float64)
        self.positions += len(tokens)

    def as_change(self) -> BaseChange:
        """The means."""
        loss, original, kl, agreement = (self.values / max(1, self.positions)).tolist()
        return BaseChange(math.exp(loss), math.exp(original), kl, agreement, self.positions)


@torch.inference_mode()
def held_out_positions(
    base: TrainableBase, heads: MedusaHeads, answers: Sequence[Answer], forward_tokens: int, *, progress: bool
) -> Positions:
    """Where heads are to guess, with the hidden states that the model has now."""
    parts = []
    with JobProgress("held-out texts, heads", len(answers), enabled=progress) as bar:
        for batch in padded_batches(answers, forward_tokens):
            states = answer_states(base.model, batch)
            parts += [_positions(heads, answer, own) for answer, own in zip(batch, states, strict=True)]
            bar.advance(len(batch), sum(len(answer.answer_ids) for answer in batch))
    return Positions(
        torch.cat([part.hidden for part in parts]),
        torch.cat([part.roots for part in parts]),
        torch.cat([part.labels for part in parts]),
    )


@torch.inference_mode()
def base_change(
    base: TrainableBase, answers: Sequence[Answer], forward_tokens: int, *, progress: bool
) -> BaseChange:
    """How far the model is from what it was, on `answers`, at least one."""
    sums = _Sums()
    with JobProgress("held-out texts, model", len(answers), enabled=progress) as bar:
        for batch in padded_batches(answers, forward_tokens):
            states = torch.cat(answer_states(base.model, batch))
            with base.original() as original:
                teacher = torch.cat(answer_states(original, batch))
                was = Projection.of(original)
            _compare(sums, (states, Projection.of(base.model)), (teacher, was), batch)
            bar.advance(len(batch), len(states))
    return sums.as_change()


def _compare(
    sums: _Sums, model: tuple[Tensor, Projection], original: tuple[Tensor, Projection], batch: list[Answer]
) -> None:
    """Add a batch, from the hidden states (m, D) and the lm_head of model and original."""
    tokens = torch.tensor([token for answer in batch for token in answer.answer_ids])
    for chunk in chunks_of(len(tokens), model[1].weight.shape[0]):
        said, wanted = (head.log_probabilities(states[chunk]) for states, head in (model, original))
        sums.add(said, wanted, tokens[chunk])


def _positions(heads: MedusaHeads, answer: Answer, states: Tensor) -> Positions:
    """All but the last token's, which nothing follows."""
    targets = Targets.of([answer], heads)
    return Positions(states[:-1].cpu(), targets.tokens[:-1], targets.labels[:-1])
