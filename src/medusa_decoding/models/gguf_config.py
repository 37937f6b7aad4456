"""The transformers config that a GGUF file describes.

GGUF keys are named after the architecture ("llama.block_count"). Mistral and SmolLM2 call themselves "llama" too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.gguf_rope import rope_parameters


class Keys:
    """The metadata of one file without the architecture's name in front."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = file.string("general.architecture")

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.file.metadata

    def integer(self, key: str, default: int | None = None) -> int:
        """The integer under "<architecture>.<key>"."""
        return self.file.integer(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> float:
        """The number under "<architecture>.<key>"."""
        return self.file.number(f"{self.architecture}.{key}", default)


def config_of(file: GgufFile) -> PreTrainedConfig:
    """The config of the model in `file`.

    Raises:
        UserError: the architecture is not one of `ARCHITECTURES`, or a key is missing or makes no sense.
    """
    keys = Keys(file)
    build = ARCHITECTURES.get(keys.architecture)
    if build is None:
        raise UserError(
            f"{file.path.name} holds a model of architecture '{keys.architecture}'; GGUF files of "
            f"{', '.join(sorted(ARCHITECTURES))} are read. Give the model's safetensors folder or Hub id instead"
        )
    if keys.integer("expert_count", 0) > 0:
        raise UserError(
            f"{file.path.name} holds a mixture of experts, which is not read from GGUF; "
            "give the model's safetensors folder or Hub id instead"
        )
    if file.integer("split.count", 1) > 1:
        raise UserError(
            f"{file.path.name} is one of several parts; join them with `llama-gguf-split --merge` and give the result"
        )
    return build(keys)


def _common(keys: Keys) -> dict[str, Any]:
    file = keys.file
    heads = keys.integer("attention.head_count")
    width = keys.integer("embedding_length")
    if heads < 1 or width < 1:
        raise file.damaged("a model without heads or without width")
    head_width = keys.integer("attention.key_length", width // heads)
    if keys.integer("attention.value_length", head_width) != head_width:
        raise UserError(f"{file.path.name}: keys and values differ in width, which is not read from GGUF")
    return {
        "vocab_size": file.shape("token_embd.weight")[0],
        "hidden_size": width,
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_width,
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": rope_parameters(keys, head_width),
        **_special_ids(file),
    }


def _special_ids(file: GgufFile) -> dict[str, int | None]:
    return {
        f"{short}_token_id": file.metadata.get(f"tokenizer.ggml.{long}_token_id")
        for short, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }


def _llama(keys: Keys) -> PreTrainedConfig:
    tensors = keys.file.tensors
    return LlamaConfig(
        **_common(keys),
        attention_bias="blk.0.attn_q.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
    )


def _qwen2(keys: Keys) -> PreTrainedConfig:
    return Qwen2Config(**_common(keys))


def _qwen3(keys: Keys) -> PreTrainedConfig:
    return Qwen3Config(**_common(keys), attention_bias="blk.0.attn_q.bias" in keys.file.tensors)


ARCHITECTURES: dict[str, Callable[[Keys], PreTrainedConfig]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
