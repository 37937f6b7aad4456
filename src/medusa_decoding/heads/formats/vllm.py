"""vLLM's layout: `config.json` and `model.safetensors`, for `--speculative-config` (method "medusa").

Checked against vLLM 0.32, which drops biases unless "medusa_fc_bias" is true, renames every config key that
has "num" and "heads" (or "layers") in it, and takes the number of heads from the config alone. It knows draft
vocabularies, but refuses to load them: its check that all weights were loaded does not count `token_map`, and
projections that are not shared are built with all rows. So all rows are written, and `token_map` beside them,
which vLLM leaves alone while "truncated_vocab_size" is null, and which says here what the heads are.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig, make_config
from medusa_decoding.heads.formats.limits import all_rows, bound_projection, refuse_root_condition
from medusa_decoding.heads.formats.tensors import (
    JsonObject,
    count_of,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.state import StateDict, check_state, state_of

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FILES = (CONFIG_FILE, WEIGHTS_FILE)

BLOCK = r"blocks\.(\d+)\.layers\.\d+\.(?:weight|bias)"
LAYER = re.compile(r"blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)")
PROJECTION = re.compile(r"lm_heads\.(\d+)\.weight")


def matches(folder: Path) -> bool:
    """Whether the folder's config is that of vLLM's Medusa model; base models have a config.json, too."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    content = read_json(folder / CONFIG_FILE)
    return content.get("model_type") == "medusa" or "MedusaModel" in str(content.get("architectures"))


def load(folder: Path) -> tuple[HeadsConfig, StateDict]:
    """Return config and tensors; heads and blocks are counted in the weights.

    One projection for all heads is taken to be the base model's, as "original_lm_head" says, and left out.
    """
    path = folder / WEIGHTS_FILE
    content = read_json(folder / CONFIG_FILE)
    tensors = {name.removeprefix("medusa_heads."): tensor for name, tensor in read_safetensors(path).items()}
    scalar = next((name for name, tensor in tensors.items() if tensor.dim() == 0), None)
    if scalar is not None:
        raise UserError(f"{path}: the tensor '{scalar}' has no dimensions; fetch or export the heads again.")
    kind, projections = _projections(tensors, content)
    token_map = _token_map(tensors, content, path)
    config = _config_from_weights(tensors, content, kind, projections, token_map, path)
    state = _blocks(tensors)
    if token_map is not None:
        state["token_map"] = token_map
    if kind == "own":
        for head, rows in projections.items():
            state[f"{head}.{config.num_layers}.weight"] = _cut(rows, token_map)
    check_state(config, state, path)
    return config, state


def save(heads: MedusaHeads, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the heads; a shared projection is shipped once, for which they must be bound.

    Projections have all V rows. A token outside a draft vocabulary gets the mean of its rows: its logit is
    the mean of the draft vocabulary's, so it is never the likeliest, which is all that vLLM asks for. Raises
    UserError for heads that see the root.
    """
    refuse_root_condition(heads.config, "vllm")
    config = heads.config
    state = state_of(heads, dtype)
    tensors: StateDict = {}
    for head in range(config.num_heads):
        for layer in range(config.num_layers):
            for kind in ("weight", "bias"):
                tensors[f"blocks.{head}.layers.{layer}.{kind}"] = state[f"{head}.{layer}.linear.{kind}"]
        if config.projection == "own":
            rows = state[f"{head}.{config.num_layers}.weight"]
            tensors[f"lm_heads.{head}.weight"] = _all_rows(rows, state, config)
    if config.projection == "shared":
        tensors["lm_head.weight"] = _all_rows(bound_projection(heads, dtype, "vllm"), state, config)
    if "token_map" in state:
        tensors["token_map"] = state["token_map"]
    write_safetensors(folder / WEIGHTS_FILE, tensors)
    write_json(folder / CONFIG_FILE, _config_for_vllm(config))


def _all_rows(rows: Tensor, state: StateDict, config: HeadsConfig) -> Tensor:
    if "token_map" not in state:
        return rows
    assert config.vocabulary_size is not None
    return all_rows(rows, state["token_map"], config.vocabulary_size)


def _config_for_vllm(config: HeadsConfig) -> JsonObject:
    """No key of a base model's config may join these: vLLM would take "num_attention_heads" for the heads."""
    return {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "vocab_size": config.vocabulary_size,
        "truncated_vocab_size": None,
        "medusa_fc_bias": True,
        "original_lm_head": config.projection == "shared",
        "base_model_name_or_path": config.base_model,
    }


def _projections(tensors: StateDict, content: JsonObject) -> tuple[str, dict[int, Tensor]]:
    """Whether the heads share one projection or have their own, and the projections by head."""
    own = {int(match[1]): rows for name, rows in tensors.items() if (match := PROJECTION.fullmatch(name))}
    if "lm_head.weight" in tensors:
        return "shared", {0: tensors["lm_head.weight"]}
    only_one_of_several = set(own) == {0} and count_of(tensors, BLOCK) > 1
    shared = bool(content.get("original_lm_head")) or only_one_of_several or not own
    return ("shared" if shared else "own"), own


def _token_map(tensors: StateDict, content: JsonObject, path: Path) -> Tensor | None:
    """The draft vocabulary's map; None where that is the whole vocabulary: vLLM ignores the map then."""
    token_map, size = tensors.get("token_map"), content.get("vocab_size")
    if token_map is not None:
        return None if token_map.numel() == size else token_map
    if content.get("truncated_vocab_size") not in (None, size):
        raise UserError(f"{path} has a draft vocabulary but no 'token_map': fetch or export the heads again.")
    return None


def _config_from_weights(
    tensors: StateDict,
    content: JsonObject,
    kind: str,
    projections: dict[int, Tensor],
    token_map: Tensor | None,
    path: Path,
) -> HeadsConfig:
    own_count = 1 + max(projections, default=-1) if kind == "own" else 0
    rows = projections.get(0)
    # Heads without blocks that share a projection leave no trace in the weights.
    num_heads = max(count_of(tensors, BLOCK), own_count) or content.get("num_heads")
    fields = {
        "num_heads": num_heads,
        "num_layers": count_of(tensors, r"blocks\.\d+\.layers\.(\d+)\.(?:weight|bias)"),
        "hidden_size": content.get("hidden_size") if rows is None else rows.shape[-1],
        "vocabulary_size": content.get("vocab_size") if rows is None or token_map is not None else len(rows),
        "projection": kind,
        "draft_vocabulary_size": None if token_map is None else token_map.numel(),
        "base_model": content.get("base_model_name_or_path"),
    }
    return make_config(fields, path.parent)


def _blocks(tensors: StateDict) -> StateDict:
    """The blocks' tensors under our names, zero where a bias is left out; what is unknown keeps its name."""
    state: StateDict = {}
    for name, tensor in tensors.items():
        if match := LAYER.fullmatch(name):
            state[f"{match[1]}.{match[2]}.linear.{match[3]}"] = tensor
            if match[3] == "weight" and f"blocks.{match[1]}.layers.{match[2]}.bias" not in tensors:
                state[f"{match[1]}.{match[2]}.linear.bias"] = torch.zeros(len(tensor), dtype=tensor.dtype)
        elif name not in ("token_map", "lm_head.weight") and not PROJECTION.fullmatch(name):
            state[name] = tensor
    return state


def _cut(projection: Tensor, token_map: Tensor | None) -> Tensor:
    """The draft vocabulary's rows of a projection that still has all; others are as they are."""
    if token_map is None or len(projection) <= token_map.numel():
        return projection
    ids = token_map.to(torch.int64)
    return projection[ids] if int(ids.min()) >= 0 and int(ids.max()) < len(projection) else projection
