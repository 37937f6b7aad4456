"""Cross-entropy of heads whose logits never exist all at once.

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

IGNORED = -1
"""Label of a position where there is nothing to guess: the answer has ended."""
OUTSIDE = -2
"""Label of a token that is not in the draft vocabulary: no loss, but a miss."""

# Logits of a chunk: 8 MB in float32, so that they stay in the processor's cache between product and softmax.
CHUNK_ELEMENTS = 2**21


def medusa_loss(heads: MedusaHeads, features: Tensor, labels: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Σ λᵏ·L_k over heads k = 1..K (the paper's equation 1), and the L_k themselves.

    features: (n, K, D) of the heads. labels: (n, K) draft ids, IGNORED or OUTSIDE; L_k is the mean
    cross-entropy over head k's rows with a draft id, 0 if there are none. Returns the loss and the L_k (K,).
    """
    losses = []
    for head in range(labels.shape[1]):
        chosen = labels[:, head] >= 0
        rows = features[:, head][chosen]
        weight, bias = projection_of(heads, head)
        total = ProjectedCrossEntropy.apply(rows, weight, bias, labels[:, head][chosen])
        losses.append(total / max(1, rows.shape[0]))
    stacked = torch.stack(losses)
    decays = decay ** torch.arange(1, len(losses) + 1, dtype=stacked.dtype, device=stacked.device)
    return stacked @ decays, stacked.detach()


def projection_of(heads: MedusaHeads, head: int) -> tuple[Tensor, Tensor | None]:
    """The (T, D) projection and the (T,) bias of a head, counted from 0."""
    if heads.projection is not None:
        return heads.projection[head], None
    assert heads.lm_head is not None, "bind the heads to their base model first"
    return heads.lm_head, heads.lm_head_bias


def chunks_of(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows whose logits fit the chunk."""
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


class ProjectedCrossEntropy(torch.autograd.Function):
    """Sum over rows of the cross-entropy of `rows @ weight.T + bias` and `labels`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        """rows (m, D), weight (T, D), bias (T,) or None, labels (m,) → scalar. The bias gets no gradient."""
        row_gradient = torch.zeros_like(rows)
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        total = rows.new_zeros(())
        for chunk in chunks_of(rows.shape[0], weight.shape[0]):
            part, target = rows[chunk], labels[chunk, None]
            probabilities = functional.linear(part, weight, bias).softmax(-1)
            # Below the smallest float the loss is cut at 87; the gradient is exact all the same.
            chosen = probabilities.gather(1, target).clamp_min(torch.finfo(rows.dtype).tiny)
            total -= chosen.log().sum()
            # The gradient of the logits is the probabilities, less one at the label.
            probabilities.scatter_add_(1, target, -torch.ones_like(chosen))
            torch.mm(probabilities, weight, out=row_gradient[chunk])
            if weight_gradient is not None:
                weight_gradient.addmm_(probabilities.t(), part)
        ctx.save_for_backward(row_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that forward computed."""
        row_gradient, weight_gradient = ctx.saved_tensors
        scale = gradients[0]
        return row_gradient * scale, None if weight_gradient is None else weight_gradient * scale, None, None
