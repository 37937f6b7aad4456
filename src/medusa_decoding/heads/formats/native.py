"""This project's own layout: `medusa_config.json` and `medusa_heads.safetensors`."""

from __future__ import annotations

from pathlib import Path

import torch

from medusa_decoding.heads.config import CONFIG_FILE, HeadsConfig, read_config, write_config
from medusa_decoding.heads.formats.tensors import read_safetensors, write_safetensors
from medusa_decoding.heads.location import WEIGHTS_FILE
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, check_state, state_of

FILES = (CONFIG_FILE, WEIGHTS_FILE)


def matches(folder: Path) -> bool:
    """Whether the folder holds this layout's config."""
    return (folder / CONFIG_FILE).is_file()


def load(folder: Path) -> tuple[HeadsConfig, StateDict]:
    """Return config and tensors; the config is strict here, and must agree with the weights."""
    config = read_config(folder / CONFIG_FILE)
    state = read_safetensors(folder / WEIGHTS_FILE)
    check_state(config, state, folder / WEIGHTS_FILE)
    return config, state


def save(heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write any heads, as `dtype` (None: as they are)."""
    write_safetensors(folder / WEIGHTS_FILE, state_of(heads, dtype))
    write_config(folder / CONFIG_FILE, heads.config)
