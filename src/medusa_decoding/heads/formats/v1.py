"""The first published layout: `medusa_lm_head.safetensors` (or `.pt`) with one projection per head.

Read by TGI, LoRAX, TensorRT-LLM and the original implementation.
"""

from __future__ import annotations

from pathlib import Path

import torch

from medusa_decoding.heads.formats import medusa_lm_head
from medusa_decoding.heads.formats.limits import (
    refuse_draft_vocabulary,
    refuse_root_condition,
    with_projections,
)
from medusa_decoding.heads.formats.medusa_lm_head import FILES, load
from medusa_decoding.heads.module import MedusaHeads

__all__ = ["FILES", "load", "matches", "save"]


def matches(folder: Path) -> bool:
    """Whether the folder holds published heads with own projections."""
    return medusa_lm_head.has_weights(folder) and medusa_lm_head.has_projections(folder)


def save(heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the heads; a shared projection is written out per head, for which they must be bound.

    Raises UserError for heads that see the root or have a draft vocabulary.
    """
    refuse_root_condition(heads.config, "v1")
    refuse_draft_vocabulary(heads.config, "v1")
    medusa_lm_head.save(heads, folder, with_projections(heads, dtype, "v1"), version=None)
