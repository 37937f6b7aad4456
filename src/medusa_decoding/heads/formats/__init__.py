"""Checkpoint layouts of Medusa heads, one module each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.formats import full, native, v1, v2, vllm
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict


class Format(Protocol):
    """What each module of this package offers."""

    @property
    def FILES(self) -> tuple[str, ...]:
        """Names of the files that the layout may consist of."""

    def matches(self, folder: Path) -> bool:
        """Whether the folder holds heads in this layout."""

    def load(self, folder: Path) -> tuple[HeadsConfig, StateDict]:
        """Return config and tensors under the names of `heads.state`; raises UserError."""

    def save(self, heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the heads as `dtype` (None: as they are); raises UserError if the layout cannot hold them.

        Only the native layout has a place for the calibration and the base model's fingerprint; the others
        leave them out, as their engines use neither.
        """


# `full` before `vllm`: MLC-LLM's config calls itself medusa, too, and its tensors tell them apart.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {"native": native, "v1": v1, "v2": v2, "full": full, "vllm": vllm}
)
SMALL_FILES = sorted({name for layout in FORMATS.values() for name in layout.FILES} - {vllm.WEIGHTS_FILE})


def detect(folder: Path) -> str:
    """Return the name of the layout that the folder holds; raises UserError naming the files looked for."""
    for name, layout in FORMATS.items():
        if layout.matches(folder):
            return name
    if full.is_pickled(folder):
        raise UserError(
            f"{folder} keeps its weights in pickled files (pytorch_model*.bin), which are not opened:"
            " ask for them as .safetensors."
        )
    raise UserError(f"No Medusa heads in {folder}: looked for {files_looked_for()}.")


def files_looked_for() -> str:
    """Return one phrase that names each layout's files."""
    return "; ".join(f"{' + '.join(layout.FILES)} ({name})" for name, layout in FORMATS.items())
