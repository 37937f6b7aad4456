"""Heads with a draft vocabulary for engines that know none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medusa_decoding.heads.formats.limits import all_rows, bound_projection
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import build_heads, state_of


def with_all_rows(heads: MedusaHeads, layout: str) -> MedusaHeads:
    """The same heads with projections of all V tokens, one per head; the given ones are bound if they share.

    `all_rows` says what a token outside the draft vocabulary gets. Raises UserError as `bound_projection`
    does.
    """
    config, tokens = heads.config, heads.token_map
    assert tokens is not None and config.vocabulary_size is not None
    shared = config.projection == "shared"
    rows = bound_projection(heads, None, layout)[None] if shared else heads.projection
    assert rows is not None
    whole = all_rows(rows.detach(), tokens, config.vocabulary_size)
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
