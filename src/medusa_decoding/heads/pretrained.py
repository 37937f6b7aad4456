"""Save heads, and find them again in a folder or on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.formats import (
    FORMATS,
    detect,
    files_looked_for,
    full,
    medusa_lm_head,
    native,
    vllm,
)
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, build_heads

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SMALL_FILES = sorted({name for layout in FORMATS.values() for name in layout.FILES} - {vllm.WEIGHTS_FILE})


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
    """Load heads in any known layout from a folder or, if there is no such folder, from a Hub id.

    The heads still have to be bound to their base model. Raises UserError when nothing is found, when a
    file is damaged, or when config and weights disagree.
    """
    folder = folder_of(location)
    return build_heads(*read_checkpoint(folder), folder).to(device, dtype)


def folder_of(location: str | Path) -> Path:
    """The folder of the heads: `location` itself or, if there is no such folder, a Hub id's in the cache.

    Raises UserError when the Hub does not give heads of that name.
    """
    folder = Path(location)
    return folder if folder.is_dir() else _download(str(location))


def read_checkpoint(folder: Path) -> tuple[HeadsConfig, StateDict]:
    """Config and tensors, of the types they are stored in; raises UserError as `from_pretrained` does."""
    return FORMATS[detect(folder)].load(folder)


def _download(location: str) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", location) or location.startswith("."):
        raise UserError(
            f"No Medusa heads at '{location}': give a folder or a Hub id with {files_looked_for()}."
        )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(location, allow_patterns=SMALL_FILES))
        large = _large_files(folder)
        return Path(snapshot_download(location, allow_patterns=[*SMALL_FILES, *large])) if large else folder
    except UserError:
        raise
    except Exception as error:
        # The Hub client raises its own, the network library's and the system's errors alike.
        raise UserError(
            f"No folder '{location}', and the Hub does not give heads of that name"
            f" ({type(error).__name__}): check the name and the network."
        ) from error


def _large_files(folder: Path) -> list[str]:
    """What else to download, now that the small files tell.

    A base model's id given by mistake has such files, too, and they weigh gigabytes.
    """
    if medusa_lm_head.has_weights(folder):
        return []
    return [vllm.WEIGHTS_FILE] if vllm.matches(folder) else full.weight_files(folder)
