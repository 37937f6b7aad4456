"""The second published layout: `medusa_lm_head.safetensors` without projections, which are the base model's.

"Version 2" is this sharing, not the paper's Medusa-2 (joint training).
"""

from __future__ import annotations

from pathlib import Path

import torch

from medusa_decoding.errors import UserError
from medusa_decoding.heads.formats import medusa_lm_head
from medusa_decoding.heads.formats.limits import refuse_draft_vocabulary, refuse_root_condition
from medusa_decoding.heads.formats.medusa_lm_head import FILES, load
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import state_of

__all__ = ["FILES", "load", "matches", "save"]


def matches(folder: Path) -> bool:
    """Whether the folder holds published heads that share the base model's projection."""
    return medusa_lm_head.has_weights(folder) and not medusa_lm_head.has_projections(folder)


def save(heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the heads; raises UserError for own projections, a root condition or a draft vocabulary."""
    refuse_root_condition(heads.config, "v2")
    refuse_draft_vocabulary(heads.config, "v2")
    if heads.config.projection == "own":
        raise UserError("Heads with projections of their own cannot be saved as v2: save them as v1.")
    if heads.config.num_layers == 0:
        raise UserError("Heads without residual blocks leave nothing to save as v2: save them as v1.")
    medusa_lm_head.save(heads, folder, state_of(heads, dtype), version="2")
