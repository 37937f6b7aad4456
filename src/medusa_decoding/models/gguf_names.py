"""Names and order of rows: from those of a GGUF file to those of transformers."""

from __future__ import annotations

from collections.abc import Mapping

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


def checked_names(file: GgufFile, model_type: str, expected: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """GGUF name -> transformers name of every weight.

    Args:
        file: the file.
        model_type: the architecture, as transformers names it.
        expected: transformers name -> shape of every weight that the model has.

    Raises:
        UserError: a tensor is unknown, missing or of another shape.
    """
    names = {name: _target(name, model_type) for name in file.tensors if not _is_in_config(name)}
    for name, target in names.items():
        if target not in expected:
            raise file.damaged(f"tensor {name!r} has no place in a model of type {model_type}")
        if file.shape(name) != expected[target]:
            raise file.damaged(f"tensor {name!r} has shape {file.shape(name)}, not {expected[target]}")
    missing = expected.keys() - set(names.values())
    if missing:
        raise file.damaged(f"{len(missing)} weights are missing, {min(missing)} among them")
    return names


def halves(values: Array, heads: int) -> Array:
    """Rows of each head from GGUF's order (real, imaginary, real, ...) to all real, then all imaginary."""
    split = values.reshape(heads, -1, 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


def _target(name: str, model_type: str) -> str:
    """The transformers name of a GGUF tensor; a name that no model has, for one that is not known."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    block, _, part = stem.removeprefix("blk.").partition(".")
    return f"model.layers.{block}.{_NAMES.get(model_type, _BLOCK).get(part, '?')}.{kind}"


def _is_in_config(name: str) -> bool:
    stem = name.rpartition(".")[0]
    return stem in _IN_CONFIG or stem.split(".")[-1] in _IN_CONFIG_PER_BLOCK
