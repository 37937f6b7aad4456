"""The loss of Medusa-2, L_LM + λ₀·Σ λᵏ·L_k (equation 2 of the paper), in parts that add up over batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medusa_decoding.distill.answers import Answer
from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.data import as_draft_ids, following_tokens
from medusa_decoding.training.loss import medusa_loss, projections
from medusa_decoding.training.targets import Labels

# Rows whose logits exist at once: few enough for memory, enough that the lm_head is not read for little.
CHUNK_ROWS = 128


@dataclass(frozen=True)
class Targets:
    """What is to be guessed at the m positions of some answers.

    tokens: (m,) the answers' tokens: what the base model should say, and the heads' roots. labels: (m, K)
    draft ids of the tokens after it, as in `Positions`.
    """

    tokens: Tensor
    labels: Tensor

    @staticmethod
    def of(answers: Sequence[Answer], heads: MedusaHeads) -> Targets:
        """The targets of `answers`, one after the other."""
        vocabulary = heads.config.vocabulary_size
        assert vocabulary is not None
        tokens = torch.tensor([token for answer in answers for token in answer.answer_ids])
        following = torch.cat(
            [following_tokens(answer.answer_ids, heads.config.num_heads) for answer in answers]
        )
        token_map = None if heads.token_map is None else heads.token_map.cpu()
        return Targets(tokens, as_draft_ids(following, token_map, vocabulary))


@dataclass(frozen=True)
class Projection:
    """An lm_head: weight (V, D), bias (V,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    @staticmethod
    def of(model: Any) -> Projection:
        """That of a Hugging Face causal LM, with its gradients."""
        head = model.get_output_embeddings()
        return Projection(head.weight, getattr(head, "bias", None))

    def to(self, dtype: torch.dtype) -> Projection:
        """The same in another type."""
        return Projection(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))

    def log_probabilities(self, rows: Tensor) -> Tensor:
        """(m, V) in float32 at least, of hidden states (m, D)."""
        logits = functional.linear(rows.to(self.weight.dtype), self.weight, self.bias)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def divergence(states: Tensor, projection: Projection, teacher: Tensor, original: Projection) -> Tensor:
    """Sum over rows of KL(original ‖ model), from hidden states `teacher` and `states` (m, D) of each.

    Gradients flow to `states` and to the projection, none to the original.
    """

    def difference(said: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        wanted = original.log_probabilities(teacher[chunk])
        probabilities = wanted.exp()
        loss = torch.sum(probabilities * (wanted - said))
        return loss, said.exp_().sub_(probabilities)

    total: Tensor = _ProjectedLoss.apply(states, projection.weight, projection.bias, difference)
    return total


def cross_entropy(states: Tensor, projection: Projection, tokens: Tensor) -> Tensor:
    """Sum over rows of -log p(token), from hidden states (m, D) and the tokens (m,); gradients as above."""

    def difference(said: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        right = tokens[chunk, None]
        chosen = said.gather(1, right)
        return -chosen.sum(), said.exp_().scatter_add_(1, right, -torch.ones_like(chosen))

    total: Tensor = _ProjectedLoss.apply(states, projection.weight, projection.bias, difference)
    return total


def heads_loss(
    heads: MedusaHeads, states: Tensor, targets: Targets, decay: float, counts: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Σ λᵏ·L_k and the L_k (K,): each head's summed cross-entropy, divided by `counts` (K,).

    Gradients flow to the heads and to the hidden states (m, D); the lm_head and the embedding that heads
    share with the base model are constants here. dtype: of the products with the projection.
    """
    roots = heads.embed(targets.tokens) if heads.config.condition == "root" else None
    with torch.autocast(heads.device.type, dtype, enabled=dtype != heads.dtype):
        features = heads.features(states.to(heads.device, heads.dtype), roots).to(heads.dtype)
    labels = targets.labels.to(heads.device)
    return medusa_loss(
        heads,
        features,
        labels,
        decay,
        targets=Labels(labels),
        counts=counts.to(heads.device),
        weight=projections(heads, dtype),
    )


Difference = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""From log-probabilities (m, V), and where their rows stand: the loss, and its gradient of the logits."""


class _ProjectedLoss(torch.autograd.Function):
    """A loss whose logits exist a chunk at a time; its gradients are computed on the way."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, difference: Difference
    ) -> Tensor:
        """states (m, D), weight (V, D), bias (V,) or None; returns a scalar."""
        projection = Projection(weight, bias)
        gradients = [
            torch.zeros_like(one) if one is not None and needed else None
            for one, needed in zip((states, weight, bias), ctx.needs_input_grad, strict=False)
        ]
        total = states.new_zeros((), dtype=torch.promote_types(states.dtype, torch.float32))
        for start in range(0, states.shape[0], CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            loss, logits = difference(projection.log_probabilities(states[chunk]), chunk)
            total += loss
            _add_gradients(gradients, logits.to(weight.dtype), states[chunk], weight, chunk)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that forward computed."""
        scaled = [None if one is None else one * gradients[0].to(one.dtype) for one in ctx.saved_tensors]
        return (*scaled, None)


def _add_gradients(
    gradients: list[Tensor | None], logits: Tensor, rows: Tensor, weight: Tensor, chunk: slice
) -> None:
    """Add what the gradient (m, V) of a chunk's logits gives for its rows, the weight and the bias."""
    of_states, of_weight, of_bias = gradients
    if of_states is not None:
        of_states[chunk] = (logits @ weight).to(of_states.dtype)
    if of_weight is not None:
        of_weight.addmm_(logits.t(), rows.to(logits.dtype))
    if of_bias is not None:
        of_bias += logits.sum(0)
