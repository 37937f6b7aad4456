"""Heads with a draft vocabulary for engines that know none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medusa_decoding.heads.formats.limits import bound_projection
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import build_heads, state_of


def with_all_rows(heads: MedusaHeads, layout: str) -> MedusaHeads:
    """The same heads with projections of all V tokens, one per head; the given ones are bound if they share.

    A token outside the draft vocabulary gets the mean of the draft vocabulary's T rows. Without a bias no row
    is minus infinity for every hidden state, but the mean's logit is the mean of T logits, which is never
    above the largest of them: each head's likeliest token stays what it was, and so do its k likeliest while
    k of the T logits lie above their mean. Raises UserError as `bound_projection` does.
    """
    config, tokens = heads.config, heads.token_map
    assert tokens is not None and config.vocabulary_size is not None
    shared = config.projection == "shared"
    rows = bound_projection(heads, None, layout)[None] if shared else heads.projection
    assert rows is not None
    whole = rows.detach().mean(1, keepdim=True).repeat(1, config.vocabulary_size, 1)
    whole[:, tokens] = rows.detach()
    return _replaced(heads, whole.expand(config.num_heads, -1, -1))


def without_draft_vocabulary(heads: MedusaHeads) -> MedusaHeads:
    """The blocks of heads that share a projection, for an engine that takes all of the base model's rows."""
    assert heads.config.projection == "shared"
    config = heads.config.model_copy(update={"draft_vocabulary_size": None})
    state = {name: tensor for name, tensor in state_of(heads).items() if name != "token_map"}
    return build_heads(config, state)


def _replaced(heads: MedusaHeads, projection: Tensor) -> MedusaHeads:
    """Heads with the blocks of the given ones and these projections (K, V, D), which are not copied."""
    update = {"draft_vocabulary_size": None, "projection": "own"}
    with torch.device("meta"):
        made = MedusaHeads(heads.config.model_copy(update=update))
    made.blocks = heads.blocks
    made.projection = nn.Parameter(projection, requires_grad=False)
    return made
