"""What the layouts of other engines cannot hold, and what they need from the base model."""

from __future__ import annotations

import torch
from torch import Tensor

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, cpu_copy, state_of


def refuse_root_condition(config: HeadsConfig, layout: str) -> None:
    """Raise UserError for heads that see the root's embedding: no other engine has such heads."""
    if config.condition == "root":
        raise UserError(
            f"Heads that see the root token cannot be saved as {layout}, which knows only heads on the hidden"
            " state: save them in the native layout, or train heads without that condition."
        )


def refuse_draft_vocabulary(config: HeadsConfig, layout: str) -> None:
    """Raise UserError for heads that propose only a part of the vocabulary."""
    if config.draft_vocabulary_size is not None:
        raise UserError(
            f"Heads with a draft vocabulary cannot be saved as {layout}, whose projections cover all tokens:"
            " save them in the native or the vllm layout."
        )


def all_rows(rows: Tensor, token_map: Tensor, vocabulary_size: int) -> Tensor:
    """(..., V, D) of (..., T, D): a draft vocabulary's rows at their tokens, their mean everywhere else.

    Without a bias no row is minus infinity for every hidden state, but the mean's logit is the mean of T
    logits, which is never above the largest of them: the likeliest token stays what it was, and so do the k
    likeliest while k of the T logits lie above their mean.
    """
    exact = rows.to(torch.promote_types(rows.dtype, torch.float32))
    mean = exact.mean(-2, keepdim=True).to(rows.dtype)
    whole = mean.repeat(*[1] * (rows.dim() - 2), vocabulary_size, 1)
    whole[..., token_map, :] = rows
    return whole


def bound_projection(heads: MedusaHeads, dtype: torch.dtype | None, layout: str) -> Tensor:
    """Return a CPU copy of the base model's rows (T, D) that the heads share.

    Raises UserError when the heads are not bound, or the base model's lm_head has a bias: no layout has one.
    """
    if heads.lm_head is None:
        raise UserError(
            f"To save heads that share the base model's lm_head as {layout}, its weights are written out:"
            " bind the heads to their base model first."
        )
    if heads.lm_head_bias is not None and bool(heads.lm_head_bias.any()):
        raise UserError(
            f"The base model's lm_head has a bias, for which {layout} has no place:"
            " save the heads in the native layout."
        )
    return cpu_copy("lm_head", heads.lm_head, dtype)


def with_projections(heads: MedusaHeads, dtype: torch.dtype | None, layout: str) -> StateDict:
    """Return the heads' tensors with one projection per head: a shared one is written out K times.

    Raises UserError as `bound_projection` does.
    """
    config, state = heads.config, state_of(heads, dtype)
    if config.projection == "shared":
        lm_head = bound_projection(heads, dtype, layout)
        state |= {f"{head}.{config.num_layers}.weight": lm_head.clone() for head in range(config.num_heads)}
    return state
