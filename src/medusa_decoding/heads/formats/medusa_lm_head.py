"""What the published layouts `v1` and `v2` have in common: `medusa_lm_head.*` and a loose `config.json`.

Published configs are wrong about the number of heads, and "version 2" says only that the lm_head is shared,
so everything that the weights can tell is taken from the weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig, make_config
from medusa_decoding.heads.formats.tensors import (
    JsonObject,
    count_of,
    read_json,
    read_pickled_tensors,
    read_safetensors,
    safetensors_names,
    write_json,
    write_safetensors,
)
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, check_state

CONFIG_FILE = "config.json"
SAFETENSORS_FILE = "medusa_lm_head.safetensors"
PICKLE_FILE = "medusa_lm_head.pt"
FILES = (CONFIG_FILE, SAFETENSORS_FILE, PICKLE_FILE)

PROJECTION = re.compile(r"\d+\.\d+\.weight")


def has_weights(folder: Path) -> bool:
    """Whether the folder holds such heads, of either version."""
    return (folder / SAFETENSORS_FILE).is_file() or (folder / PICKLE_FILE).is_file()


def has_projections(folder: Path) -> bool:
    """Whether each head has its own projection.

    A pickle is not opened just to look: the config's word is taken for the layout's name, and `load` looks.
    """
    if (folder / SAFETENSORS_FILE).is_file():
        return any(PROJECTION.fullmatch(name) for name in safetensors_names(folder / SAFETENSORS_FILE))
    return str(_config(folder).get("version")) != "2"


def load(folder: Path) -> tuple[HeadsConfig, StateDict]:
    """Return config and tensors of either version; safetensors are preferred to a pickle."""
    path = folder / SAFETENSORS_FILE
    if path.is_file():
        state = read_safetensors(path)
    else:
        path = folder / PICKLE_FILE
        state = read_pickled_tensors(path)
    config = config_from_weights(state, _config(folder), path)
    check_state(config, state, path)
    return config, state


def save(heads: MedusaHeads, folder: Path, state: StateDict, version: str | None) -> None:
    """Write the tensors and a config that TGI, TensorRT-LLM and the original implementation read.

    TGI takes the absence of "architectures" as the sign of Medusa heads.
    """
    config = heads.config
    content: JsonObject = {
        "base_model_name_or_path": config.base_model,
        "medusa_num_heads": config.num_heads,
        "medusa_num_layers": config.num_layers,
        "num_medusa_heads": config.num_heads,
        "num_medusa_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocabulary_size,
        "version": version,
    }
    write_safetensors(folder / SAFETENSORS_FILE, state)
    write_json(folder / CONFIG_FILE, {key: value for key, value in content.items() if value is not None})


def config_from_weights(state: StateDict, content: JsonObject, path: Path) -> HeadsConfig:
    """Return the config of heads under these names, counted and measured in their tensors.

    `content`: what `config.json` says of the vocabulary and the base model. Raises UserError, naming `path`,
    where there are no heads.
    """
    num_heads = count_of(state, r"(\d+)\.\d+\.(?:linear\.)?(?:weight|bias)")
    num_layers = count_of(state, r"\d+\.(\d+)\.linear\.(?:weight|bias)")
    projection = state.get(f"0.{num_layers}.weight")
    first = projection if projection is not None else state.get("0.0.linear.weight")
    if num_heads == 0 or first is None or first.dim() != 2:
        raise UserError(f"{path} holds no Medusa heads: its tensors are not named like '0.0.linear.weight'.")
    fields = {
        "num_heads": num_heads,
        "num_layers": num_layers,
        "hidden_size": first.shape[1],
        "vocabulary_size": content.get("vocab_size") if projection is None else projection.shape[0],
        "projection": "shared" if projection is None else "own",
        "base_model": content.get("base_model_name_or_path"),
    }
    return make_config(fields, path)


def _config(folder: Path) -> JsonObject:
    path = folder / CONFIG_FILE
    return read_json(path) if path.is_file() else {}
