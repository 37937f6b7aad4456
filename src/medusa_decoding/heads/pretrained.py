"""Save heads, and find them again in a folder or on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.formats import FORMATS, detect, native
from medusa_decoding.heads.location import folder_of
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, build_heads

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def save_pretrained(
    heads: MedusaHeads,
    folder: str | Path,
    *,
    dtype: str = "float16",
    extra_files: Mapping[str, str] | None = None,
) -> None:
    """Write the heads in this project's layout and each of `extra_files` (name → text).

    `dtype`: "float16", "bfloat16" or "float32". Raises UserError for another one, or for
    values it cannot hold.
    """
    if dtype not in DTYPES:
        raise UserError(f"Unknown dtype '{dtype}' for heads: use one of {', '.join(DTYPES)}.")
    native.save(heads, Path(folder), dtype=DTYPES[dtype])
    for name, text in (extra_files or {}).items():
        with atomic_write(Path(folder) / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def from_pretrained(
    location: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> MedusaHeads:
    """Load heads in any known layout from a folder or, if there is no such folder, from a Hub id
    (`owner/name` or `owner/name@revision`).

    The heads still have to be bound to their base model. Raises UserError when nothing is found, when a
    file is damaged, or when config and weights disagree.
    """
    folder = folder_of(location)
    return build_heads(*read_checkpoint(folder), folder).to(device, dtype)


def read_checkpoint(folder: Path) -> tuple[HeadsConfig, StateDict]:
    """Config and tensors, of the types they are stored in; raises UserError as `from_pretrained` does."""
    return FORMATS[detect(folder)].load(folder)
