"""The first published layout: `medusa_lm_head.safetensors` (or `.pt`) with one projection per head.

Read by TGI, LoRAX, TensorRT-LLM and the original implementation.
"""

from __future__ import annotations

from pathlib import Path

import torch

from medusa_decoding.heads.formats import medusa_lm_head
from medusa_decoding.heads.formats.limits import (
    bound_projection,
    refuse_draft_vocabulary,
    refuse_root_condition,
)
from medusa_decoding.heads.formats.medusa_lm_head import FILES, load
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import state_of

__all__ = ["FILES", "load", "matches", "save"]


def matches(folder: Path) -> bool:
    """Whether the folder holds published heads with own projections."""
    return medusa_lm_head.has_weights(folder) and medusa_lm_head.has_projections(folder)


def save(heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the heads; a shared projection is written out per head, for which they must be bound.

    Raises UserError for heads that see the root or have a draft vocabulary.
    """
    config = heads.config
    refuse_root_condition(config, "v1")
    refuse_draft_vocabulary(config, "v1")
    state = state_of(heads, dtype)
    if config.projection == "shared":
        lm_head = bound_projection(heads, dtype, "v1")
        state |= {f"{head}.{config.num_layers}.weight": lm_head.clone() for head in range(config.num_heads)}
    medusa_lm_head.save(heads, folder, state, version=None)
