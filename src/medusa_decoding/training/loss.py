"""The loss of heads whose logits never exist all at once.

The base model's projection is large and frozen, so the loss and its gradient with respect to the features are
computed together, chunk by chunk: forward and backward cost two matrix products and one softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.targets import Targets, log_normaliser

IGNORED = -1
"""Label of a position where there is nothing to guess: the answer has ended."""
OUTSIDE = -2
"""Label of a token that is not in the draft vocabulary: no loss, but a miss."""

# Logits of a chunk: 8 MB in float32, so that they stay in the processor's cache between product and softmax.
CHUNK_ELEMENTS = 2**21


def medusa_loss(
    heads: MedusaHeads,
    features: Tensor,
    labels: Tensor,
    decay: float,
    *,
    targets: Targets,
    counts: Tensor | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ λᵏ·L_k over heads k = 1..K (the paper's equation 1), and the L_k themselves.

    L_k is the divergence (cross-entropy for `Labels`, KL for `Teacher`) summed over head k's rows with a
    draft id, divided by `counts[k - 1]`. Rows without one carry no loss: where the base model's token is
    outside the draft vocabulary, what is left of its distribution says little.

    features: (n, K, D) of the heads. labels: (n, K) draft ids, IGNORED or OUTSIDE. targets: of the n rows.
    counts: (K,), so that parts of a batch add up to the whole; None: the rows there are.
    weight: the heads' projection in the type to compute in (`projections`); None: as it is.
    Returns the loss and the L_k (K,).
    """
    there = labels >= 0
    counts = there.sum(0) if counts is None else counts
    row_weights = there.to(features.dtype) / counts.to(features.dtype).clamp_min(1e-9)
    losses = _ProjectedLoss.apply(
        features, projections(heads) if weight is None else weight, heads.lm_head_bias, targets, row_weights
    )
    decays = decay ** torch.arange(1, labels.shape[1] + 1, dtype=losses.dtype, device=losses.device)
    return losses @ decays, losses.detach()


def projections(heads: MedusaHeads, dtype: torch.dtype | None = None) -> Tensor:
    """(T, D) shared by the heads, or (K, T, D) of their own, as `dtype`."""
    if heads.projection is not None:
        return heads.projection if dtype is None else heads.projection.to(dtype)
    assert heads.lm_head is not None, "bind the heads to their base model first"
    return heads.lm_head if dtype is None else heads.lm_head.to(dtype)


def projection_of(heads: MedusaHeads, head: int) -> tuple[Tensor, Tensor | None]:
    """The (T, D) projection and the (T,) bias of a head, counted from 0."""
    if heads.projection is not None:
        return heads.projection[head], None
    return projections(heads), heads.lm_head_bias


def chunks_of(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows whose logits fit the chunk."""
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


class _ProjectedLoss(torch.autograd.Function):
    """(K,) weighted sums over rows of how far softmax(`features @ weight.T + bias`) is from the targets."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, targets: Targets, row_weights: Tensor
    ) -> Tensor:
        """features (n, K, D), weight (T, D) or (K, T, D), bias (T,) or None, row_weights (n, K) → (K,)."""
        feature_gradient = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        # Sums of many chunks: never in bfloat16.
        weight_gradient = torch.zeros_like(weight, dtype=features.dtype) if ctx.needs_input_grad[1] else None
        bias = None if bias is None else bias.to(weight.dtype)
        losses = torch.zeros_like(row_weights[0])
        for spans in chunks_of(features.shape[0] // targets.span, weight.shape[-2] * targets.span):
            targets.look_at(spans)
            rows = slice(spans.start * targets.span, spans.stop * targets.span)
            for head in range(features.shape[1]):
                own = weight[head] if weight.dim() == 3 else weight
                part, weights = features[rows, head].to(weight.dtype), row_weights[rows, head]
                divergence, difference = _divergence(functional.linear(part, own, bias), targets, head)
                losses[head] += divergence.to(features.dtype) @ weights
                if feature_gradient is weight_gradient is None:
                    continue
                targets.subtract_from(difference, head)
                if feature_gradient is not None:
                    feature_gradient[rows, head] = torch.mm(difference, own) * weights[:, None]
                if weight_gradient is not None:
                    weighted = (part * weights[:, None]).to(weight.dtype)
                    weight_gradient[head] += torch.mm(difference.t(), weighted)
        ctx.save_for_backward(feature_gradient, weight_gradient)
        ctx.weight_type = weight.dtype
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that forward computed."""
        of_features, of_weight = ctx.saved_tensors
        scale = gradients[0][:, None]
        if of_features is not None:
            of_features = of_features * scale
        if of_weight is not None:
            of_weight = (of_weight * scale[:, None]).to(ctx.weight_type)
        return of_features, of_weight, None, None, None


def _divergence(logits: Tensor, targets: Targets, head: int) -> tuple[Tensor, Tensor]:
    """(r,) the divergence of softmax(`logits`) from a head's targets, and that softmax (r, T)."""
    probabilities = logits.softmax(-1)
    surprise = log_normaliser(logits, probabilities, targets.likely(head)) - targets.expected(logits, head)
    return surprise - targets.entropy(head), probabilities
