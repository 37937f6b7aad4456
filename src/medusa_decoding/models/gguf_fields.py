"""What the header of a GGUF file says of every architecture, in the words of a transformers config."""

from __future__ import annotations

from typing import Any

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_keys import Keys
from medusa_decoding.models.gguf_rope import rope_parameters

INSTEAD = "give the model's safetensors folder or Hub id instead"


def common_fields(keys: Keys) -> dict[str, Any]:
    """What the config of every architecture has, by the names of transformers.

    The number of blocks is checked, because it decides how much is built.

    Raises:
        UserError: a key is missing or makes no sense, or the file is of a kind that is not read.
    """
    _check_kind(keys)
    blocks = keys.positive("block_count")
    present = {name.split(".")[1] for name in keys.file.tensors if name.startswith("blk.")}
    if len(present) != blocks:
        raise keys.file.damaged(f"it announces {blocks} blocks and holds {len(present)}")
    heads = keys.positive("attention.head_count")
    width = keys.positive("embedding_length")
    head_width = keys.positive("attention.key_length", width // heads)
    if keys.integer("attention.value_length", head_width) != head_width:
        raise UserError(f"{keys.file.path.name}: keys and values differ in width: {INSTEAD}")
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


def _check_kind(keys: Keys) -> None:
    name = keys.file.path.name
    if keys.integer("expert_count", 0) > 0:
        raise UserError(f"{name} holds a mixture of experts, which is not read from GGUF: {INSTEAD}")
    if keys.integer("split.count", 1) > 1:
        raise UserError(f"{name} is one of several parts; join them with `llama-gguf-split --merge` first")
