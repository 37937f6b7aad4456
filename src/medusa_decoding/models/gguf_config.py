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
from medusa_decoding.models.gguf_keys import Keys
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.gguf_rope import rope_parameters

_INSTEAD = "give the model's safetensors folder or Hub id instead"


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
            f"{', '.join(sorted(ARCHITECTURES))} are read: {_INSTEAD}"
        )
    if keys.integer("expert_count", 0) > 0:
        raise UserError(
            f"{file.path.name} holds a mixture of experts, which is not read from GGUF: {_INSTEAD}"
        )
    if keys.integer("split.count", 1) > 1:
        raise UserError(
            f"{file.path.name} is one of several parts; join them with `llama-gguf-split --merge` first"
        )
    return build(keys)


def _common(keys: Keys) -> dict[str, Any]:
    """What all of them have; the number of blocks is checked, because it decides how much is built."""
    blocks = keys.positive("block_count")
    present = {name.split(".")[1] for name in keys.file.tensors if name.startswith("blk.")}
    if len(present) != blocks:
        raise keys.file.damaged(f"it announces {blocks} blocks and holds {len(present)}")
    heads = keys.positive("attention.head_count")
    width = keys.positive("embedding_length")
    head_width = keys.positive("attention.key_length", width // heads)
    if keys.integer("attention.value_length", head_width) != head_width:
        raise UserError(f"{keys.file.path.name}: keys and values differ in width: {_INSTEAD}")
    vocabulary = keys.file.shape("token_embd.weight")[0]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": keys.positive("feed_forward_length"),
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.positive("attention.head_count_kv", heads),
        "head_dim": head_width,
        "max_position_embeddings": keys.positive("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in keys.file.tensors,
        "rope_parameters": rope_parameters(keys, head_width),
        "bos_token_id": keys.token_id("bos", vocabulary),
        "eos_token_id": keys.token_id("eos", vocabulary),
        "pad_token_id": keys.token_id("padding", vocabulary),
    }


def _has(keys: Keys, tensor: str) -> bool:
    return f"blk.0.{tensor}" in keys.file.tensors


def _llama(keys: Keys) -> PreTrainedConfig:
    biases = {"attention_bias": _has(keys, "attn_q.bias"), "mlp_bias": _has(keys, "ffn_up.bias")}
    return LlamaConfig(**_common(keys), **biases)


def _qwen2(keys: Keys) -> PreTrainedConfig:
    return Qwen2Config(**_common(keys))


def _qwen3(keys: Keys) -> PreTrainedConfig:
    return Qwen3Config(**_common(keys), attention_bias=_has(keys, "attn_q.bias"))


def _phi3(keys: Keys) -> PreTrainedConfig:
    common = _common(keys)
    common.pop("head_dim")
    rope = common["rope_parameters"]
    original = rope.get("original_max_position_embeddings", common["max_position_embeddings"])
    # Files name a window, but the converter takes it from a config whose models were not trained with it on
    # all layers; llama.cpp ignores it too.
    return Phi3Config(**common, original_max_position_embeddings=original, sliding_window=None)


def _gemma(keys: Keys) -> PreTrainedConfig:
    return GemmaConfig(**_common(keys), hidden_act="gelu_pytorch_tanh")


def _gemma2(keys: Keys) -> PreTrainedConfig:
    common = _common(keys)
    return Gemma2Config(
        **common,
        sliding_window=keys.positive("attention.sliding_window", 4096),
        layer_types=_layer_types(keys, common["num_hidden_layers"], 2),
        attn_logit_softcapping=keys.number("attn_logit_softcapping", 50.0),
        final_logit_softcapping=keys.number("final_logit_softcapping", 30.0),
        query_pre_attn_scalar=_query_scale(common, largest=46),
    )


def _gemma3(keys: Keys) -> PreTrainedConfig:
    common = _common(keys)
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
