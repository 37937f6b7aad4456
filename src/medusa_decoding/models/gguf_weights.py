"""The state dict of a GGUF file: names, order of rows and values as transformers has them."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from medusa_decoding.models.gguf_reader import Array, GgufFile

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_BLOCK = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_NAMES = {
    "gemma2": _BLOCK | _GEMMA_BLOCK,
    "gemma3_text": _BLOCK | _GEMMA_BLOCK,
    # Phi-3 keeps gate and up projection in one matrix, in both worlds.
    "phi3": _BLOCK | {"ffn_up": "mlp.gate_up_proj"},
}
# They speak of rotary positions; the config has taken them in.
_IN_CONFIG = ("rope_freqs", "rope_factors_long", "rope_factors_short")
_IN_CONFIG_PER_BLOCK = ("attn_rot_embd", "attn_rope_freqs")


def state_dict_of(file: GgufFile, config: PreTrainedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every weight of `file` under its transformers name, dequantised to `dtype`.

    One tensor at a time passes through float32, so the peak is the model in `dtype` and one float32 tensor.

    Raises:
        UserError: a tensor is unknown, missing, of the wrong shape or of an unknown quantisation.
    """
    names = _checked_names(file, config)
    return {target: _weight(file, name, config).to(dtype) for name, target in names.items()}


def _checked_names(file: GgufFile, config: PreTrainedConfig) -> dict[str, str]:
    """GGUF name -> transformers name, with every shape as the config wants it."""
    names = {name: _target(name, config) for name in file.tensors if not _is_in_config(name)}
    expected = _shapes(config)
    for name, target in names.items():
        if target not in expected:
            raise file.damaged(f"tensor {name!r} has no place in a model of type {config.model_type}")
        if file.shape(name) != expected[target]:
            raise file.damaged(f"tensor {name!r} has shape {file.shape(name)}, not {expected[target]}")
    missing = expected.keys() - set(names.values())
    if missing:
        raise file.damaged(f"{len(missing)} weights are missing, {min(missing)} among them")
    return names


def _target(name: str, config: PreTrainedConfig) -> str:
    """The transformers name of a GGUF tensor; a name that no model has, for one that is not known."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    block, _, part = stem.removeprefix("blk.").partition(".")
    return f"model.layers.{block}.{_NAMES.get(config.model_type, _BLOCK).get(part, '?')}.{kind}"


def _is_in_config(name: str) -> bool:
    stem = name.rpartition(".")[0]
    return stem in _IN_CONFIG or stem.split(".")[-1] in _IN_CONFIG_PER_BLOCK


def _shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a model of `config` has, without making one."""
    with torch.device("meta"):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def _weight(file: GgufFile, name: str, config: PreTrainedConfig) -> torch.Tensor:
    values = file.tensor(name)
    if config.model_type == "llama" and ".attn_q." in name:
        values = _halves(values, config.num_attention_heads)
    elif config.model_type == "llama" and ".attn_k." in name:
        values = _halves(values, config.num_key_value_heads)
    elif config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        # transformers multiplies by 1 + w, GGUF holds that sum.
        values = values - 1.0
    # A tensor that was not quantised is still the file's own memory, which is read-only.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _halves(values: Array, heads: int) -> Array:
    """Rows of each head from GGUF's order (real, imaginary, real, ...) to all real, then all imaginary."""
    split = values.reshape(heads, -1, 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)
