"""Base model and heads in one checkpoint: `medusa_head.{h}. ...` among the base model's tensors.

Medusa 1.0 publishes such folders and RTP-LLM serves them. Heads that MLC-LLM (alone in the file) and NVIDIA
ModelOpt (`medusa_heads.`) keep under such names are read as well. Of all files only the heads' tensors are
read, and of a Hub repository only the files that hold them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.formats.limits import (
    refuse_draft_vocabulary,
    refuse_root_condition,
    with_projections,
)
from medusa_decoding.heads.formats.medusa_lm_head import config_from_weights
from medusa_decoding.heads.formats.tensors import (
    JsonObject,
    read_json,
    read_safetensors,
    safetensors_names,
    write_json,
    write_safetensors,
)
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, check_state

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FILES = (CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE)

PREFIX = "medusa_head."
HEADS = re.compile(r"medusa_heads?\.(?=\d+\.\d)")
CONFIG_KEYS = ("medusa_num_heads", "medusa_config", "medusa")
"""What a config says of heads inside: Medusa 1.0 and MLC-LLM, RTP-LLM, ModelOpt."""


def matches(folder: Path) -> bool:
    """Whether the folder's checkpoint has tensors of heads under these names."""
    if not weight_files(folder):
        return False
    return any(HEADS.match(name) for name in _homes(folder))


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold the heads; the single file, if only the config speaks of heads."""
    if (folder / INDEX_FILE).is_file():
        return sorted({file for name, file in _homes(folder).items() if HEADS.match(name)})
    return [WEIGHTS_FILE] if _speaks_of_heads(folder) else []


def is_pickled(folder: Path) -> bool:
    """Whether the config speaks of heads inside, and the weights are pickles."""
    return _speaks_of_heads(folder) and any(folder.glob("pytorch_model*.bin"))


def load(folder: Path) -> tuple[HeadsConfig, StateDict]:
    """Return config and tensors; heads and blocks are counted in the weights."""
    homes = {name: file for name, file in _homes(folder).items() if HEADS.match(name)}
    state: StateDict = {}
    for file in sorted(set(homes.values())):
        names = [name for name, home in homes.items() if home == file]
        tensors = read_safetensors(folder / file, names)
        state.update({HEADS.sub("", name): tensor for name, tensor in tensors.items()})
    config = config_from_weights(state, read_json(folder / CONFIG_FILE), folder)
    check_state(config, state, folder)
    return config, state


def save(heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Add the heads to the folder of their base model, as one more file of its checkpoint.

    A shared projection is written out per head, for which the heads must be bound. Raises UserError where
    there is no base model, and for heads that see the root or have a draft vocabulary. The folder is changed
    file by file: give one that nobody reads yet.
    """
    refuse_root_condition(heads.config, "full")
    refuse_draft_vocabulary(heads.config, "full")
    content = read_json(folder / CONFIG_FILE)
    homes = _homes(folder)
    if not homes or any(HEADS.match(name) for name in homes):
        held = "heads already" if homes else "no base model"
        raise UserError(f"{folder} holds {held}: give a folder of the base model alone.")
    state = {f"{PREFIX}{name}": tensor for name, tensor in with_projections(heads, dtype, "full").items()}
    homes, last = _renumbered(folder, homes)
    write_safetensors(folder / last, state)
    size = sum((folder / file).stat().st_size for file in {*homes.values(), last})
    index = {"metadata": {"total_size": size}, "weight_map": homes | dict.fromkeys(state, last)}
    write_json(folder / INDEX_FILE, index)
    counts = {"medusa_num_heads": heads.config.num_heads, "medusa_num_layers": heads.config.num_layers}
    write_json(folder / CONFIG_FILE, content | counts)


def _renumbered(folder: Path, homes: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Name the base model's files as the first of one more; returns tensor -> file, and the last file."""
    files = sorted(set(homes.values()))
    total = len(files) + 1
    names = {file: f"model-{place:05d}-of-{total:05d}.safetensors" for place, file in enumerate(files, 1)}
    for file, name in names.items():
        (folder / file).rename(folder / name)
    last = f"model-{total:05d}-of-{total:05d}.safetensors"
    return {tensor: names[file] for tensor, file in homes.items()}, last


def _homes(folder: Path) -> dict[str, str]:
    """Tensor -> name of the file that has it, by the index or from the single file."""
    if (folder / INDEX_FILE).is_file():
        homes = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(homes, dict) or not all(_is_file_name(file) for file in homes.values()):
            raise UserError(
                f"{folder / INDEX_FILE} does not say which file has which tensor: fetch it again."
            )
        return homes
    path = folder / WEIGHTS_FILE
    return dict.fromkeys(safetensors_names(path), WEIGHTS_FILE) if path.is_file() else {}


def _is_file_name(file: object) -> bool:
    return isinstance(file, str) and file == Path(file).name and file not in ("", "..")


def _speaks_of_heads(folder: Path) -> bool:
    content: JsonObject = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    return any(key in content for key in CONFIG_KEYS)
