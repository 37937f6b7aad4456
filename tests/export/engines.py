"""What other engines do with a folder of heads: small modules after their loaders, as docs/formats.md tells.

They read files and config by their own rules and know nothing of this project's code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional


def read_config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


class VllmBlock(nn.Module):
    """All residual blocks of one head; linears have a bias only where the config says so."""

    def __init__(self, size: int, layers: int, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size, bias=bias) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + functional.silu(layer(x))
        return x


def vllm_logits(folder: Path, hidden: Tensor) -> Tensor:
    """(n, K, V): vLLM's Medusa proposer; what has no parameter of its name is passed over in silence."""
    config = read_config(folder)
    assert config["architectures"] == ["MedusaModel"] and config["model_type"] == "medusa"
    # Its config class renames by substring.
    for key in list(config):
        if "num" in key and "heads" in key:
            config["num_heads"] = config.pop(key)
        elif "num" in key and "layers" in key:
            config["num_hidden_layers"] = config.pop(key)
    whole = config["vocab_size"]
    # It becomes a parameter that the loader's check does not find among the loaded ones.
    assert config["truncated_vocab_size"] in (None, whole), "vLLM 0.32 refuses token_map"
    size, heads = config["hidden_size"], config["num_heads"]
    module = nn.Module()
    bias = config.get("medusa_fc_bias", False)
    module.blocks = nn.ModuleList(VllmBlock(size, config["num_hidden_layers"], bias) for _ in range(heads))
    shared = config.get("original_lm_head", False)
    if shared:
        module.lm_head = nn.Linear(size, whole, bias=False)
    else:
        module.lm_heads = nn.ModuleList(nn.Linear(size, whole, bias=False) for _ in range(heads))
    state = {
        name.replace("medusa_heads.", ""): t for name, t in load_file(folder / "model.safetensors").items()
    }
    state.pop("token_map", None)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not missing and not unexpected, "vLLM would run uninitialised weights, or drop some"
    projections = [module.lm_head] * heads if shared else list(module.lm_heads)
    rows = [projection(block(hidden)) for block, projection in zip(module.blocks, projections, strict=True)]
    return torch.stack(rows, 1)


def tgi_logits(folder: Path, hidden: Tensor, lm_head: Tensor) -> Tensor:
    """(n, K, V): TGI tries version 1 and, where a tensor is missing, version 2."""
    config = read_config(folder)
    assert "architectures" not in config and config["base_model_name_or_path"]
    state = load_file(folder / "medusa_lm_head.safetensors")
    try:
        return sequential_logits(state, config["medusa_num_heads"], config["medusa_num_layers"], hidden)
    except KeyError:
        assert config["medusa_num_layers"] == 1
        heads = range(config["medusa_num_heads"])
        weight = torch.cat([state[f"{head}.0.linear.weight"] for head in heads])
        bias = torch.cat([state[f"{head}.0.linear.bias"] for head in heads])
        inner = functional.silu(functional.linear(hidden, weight, bias))
        return functional.linear(hidden[:, None] + inner.unflatten(-1, (len(heads), -1)), lm_head)


def tensorrt_logits(folder: Path, hidden: Tensor) -> Tensor:
    """(n, K, V): TensorRT-LLM's converter asks for the head count under another name."""
    config = read_config(folder)
    state = load_file(folder / "medusa_lm_head.safetensors")
    return sequential_logits(state, config["num_medusa_heads"], config["medusa_num_layers"], hidden)


def whole_logits(folder: Path, hidden: Tensor) -> Tensor:
    """(n, K, V): the original implementation's 1.0, and RTP-LLM, find the heads by the index."""
    config = read_config(folder)
    homes = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    prefix = "medusa_head."
    inside = {name: file for name, file in homes.items() if name.startswith(prefix)}
    state = {name.removeprefix(prefix): load_file(folder / file)[name] for name, file in inside.items()}
    return sequential_logits(state, config["medusa_num_heads"], config["medusa_num_layers"], hidden)


def sequential_logits(state: dict[str, Tensor], heads: int, layers: int, hidden: Tensor) -> Tensor:
    """(n, K, V): K modules of L residual blocks and a projection each."""
    rows = []
    for head in range(heads):
        x = hidden
        for layer in range(layers):
            weight, bias = (state[f"{head}.{layer}.linear.{part}"] for part in ("weight", "bias"))
            x = x + functional.silu(functional.linear(x, weight, bias))
        rows.append(functional.linear(x, state[f"{head}.{layers}.weight"]))
    return torch.stack(rows, 1)
