"""The transformers config that a GGUF file describes.

GGUF keys are named after the architecture ("llama.block_count"). Mistral and SmolLM2 call themselves "llama"
too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_fields import INSTEAD, common_fields
from medusa_decoding.models.gguf_keys import Keys
from medusa_decoding.models.gguf_reader import GgufFile


def config_of(file: GgufFile) -> PreTrainedConfig:
    """The config of the model in `file`.

    Raises:
        UserError: the architecture is not one of `ARCHITECTURES`, or a key is missing or makes no sense.
    """
    keys = Keys(file)
    build = ARCHITECTURES.get(keys.architecture)
    if build is None:
        raise UserError(
            f"{file.path.name} holds a model of architecture {keys.architecture!r}; GGUF files of "
            f"{', '.join(sorted(ARCHITECTURES))} are read: {INSTEAD}"
        )
    return build(keys)


def _has(keys: Keys, tensor: str) -> bool:
    return f"blk.0.{tensor}" in keys.file.tensors


def _llama(keys: Keys) -> PreTrainedConfig:
    biases = {"attention_bias": _has(keys, "attn_q.bias"), "mlp_bias": _has(keys, "ffn_up.bias")}
    return LlamaConfig(**common_fields(keys), **biases)


def _qwen2(keys: Keys) -> PreTrainedConfig:
    return Qwen2Config(**common_fields(keys))


def _qwen3(keys: Keys) -> PreTrainedConfig:
    return Qwen3Config(**common_fields(keys), attention_bias=_has(keys, "attn_q.bias"))


def _phi3(keys: Keys) -> PreTrainedConfig:
    common = common_fields(keys)
    common.pop("head_dim")
    rope = common["rope_parameters"]
    original = rope.get("original_max_position_embeddings", common["max_position_embeddings"])
    # Files name a window, but the converter takes it from a config whose models were not trained with it on
    # all layers; llama.cpp ignores it too.
    return Phi3Config(**common, original_max_position_embeddings=original, sliding_window=None)


def _gemma(keys: Keys) -> PreTrainedConfig:
    return GemmaConfig(**common_fields(keys), hidden_act="gelu_pytorch_tanh")


def _gemma2(keys: Keys) -> PreTrainedConfig:
    common = common_fields(keys)
    return Gemma2Config(
        **common,
        sliding_window=keys.positive("attention.sliding_window", 4096),
        layer_types=_layer_types(keys, common["num_hidden_layers"], 2),
        attn_logit_softcapping=keys.number("attn_logit_softcapping", 50.0),
        final_logit_softcapping=keys.number("final_logit_softcapping", 30.0),
        query_pre_attn_scalar=_query_scale(common, largest=46),
    )


def _gemma3(keys: Keys) -> PreTrainedConfig:
    common = common_fields(keys)
    window = keys.integer("attention.sliding_window", 0)
    local = {"rope_type": "default", "rope_theta": keys.number("rope.freq_base_swa", 10000.0)}
    common["rope_parameters"] = {"full_attention": common["rope_parameters"], "sliding_attention": local}
    return Gemma3TextConfig(
        **common,
        sliding_window=window or common["max_position_embeddings"],
        layer_types=_layer_types(keys, common["num_hidden_layers"], 6 if window else 1),
        final_logit_softcapping=keys.number("final_logit_softcapping", 0.0) or None,
        query_pre_attn_scalar=_query_scale(common, largest=62),
    )


def _layer_types(keys: Keys, layers: int, every: int) -> list[str]:
    """Every n-th layer sees everything, the others a window; newer files list the windows layer by layer."""
    pattern = keys.file.metadata.get(f"{keys.architecture}.attention.sliding_window_pattern", every)
    if isinstance(pattern, int) and pattern > 0:
        windows = [(layer + 1) % pattern != 0 for layer in range(layers)]
    elif isinstance(pattern, list) and len(pattern) == layers:
        windows = [bool(value) for value in pattern]
    else:
        raise keys.file.damaged("its pattern of attention windows does not fit its blocks")
    return ["sliding_attention" if window else "full_attention" for window in windows]


def _query_scale(common: dict[str, Any], largest: int) -> int:
    """GGUF does not hold it: the head's width, except in each family's 27B, known by its number of blocks."""
    width = int(common["hidden_size"]) // int(common["num_attention_heads"])
    return width if common["num_hidden_layers"] == largest else int(common["head_dim"])


ARCHITECTURES: dict[str, Callable[[Keys], PreTrainedConfig]] = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "llama": _llama,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
