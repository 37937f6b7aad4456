"""The state dict of a GGUF file: names, order of rows and values as transformers has them."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedConfig

from medusa_decoding.models.gguf_reader import Array, GgufFile

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def state_dict_of(file: GgufFile, config: PreTrainedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every weight of `file` under its transformers name, dequantised to `dtype`.

    One tensor at a time passes through float32, so the peak is the model in `dtype` and one float32 tensor.

    Raises:
        UserError: a tensor is unknown, missing, of the wrong shape or of an unknown quantisation.
    """
    state = {}
    for name in file.tensors:
        target = _target(name)
        if target is not None:
            values = _rearranged(name, file.tensor(name), config)
            state[target] = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    return state


def _target(name: str) -> str | None:
    """The transformers name of a GGUF tensor; None for what the config already holds."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    if not stem.startswith("blk."):
        return None
    _, layer, part = stem.split(".", 2)
    return f"model.layers.{layer}.{_BLOCK[part]}.{kind}" if part in _BLOCK else None


def _rearranged(name: str, values: Array, config: PreTrainedConfig) -> Array:
    if config.model_type != "llama":
        return values
    if ".attn_q." in name:
        return _halves(values, config.num_attention_heads)
    if ".attn_k." in name:
        return _halves(values, config.num_key_value_heads)
    return values


def _halves(values: Array, heads: int) -> Array:
    """Rows of each head from GGUF's order (real, imaginary, real, …) to transformers' (all real, all imaginary)."""
    split = values.reshape(heads, -1, 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)
