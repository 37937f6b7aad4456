"""Tiny random models of the Llama family, one per architecture and peculiarity, and how torch loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from medusa_decoding.models import load_base_model, resolve
from medusa_decoding.models.checkpoint import Checkpoint
from tests.tiny import tiny_tokenizer

from .gguf_files import DATA, GgufFile, random_model

TOKENS = len(GgufFile(DATA / "byte_level.gguf").metadata["tokenizer.ggml.tokens"])
BASE: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**BASE),
    "llama, tied, wide heads": LlamaConfig(**BASE, tie_word_embeddings=True, head_dim=16),
    "llama 3.1": LlamaConfig(**BASE | {"head_dim": 16}, rope_parameters=dict(LLAMA3)),
    "mistral": MistralConfig(**BASE, sliding_window=None),
    "mistral, window": MistralConfig(**BASE, sliding_window=8),
    "qwen2": Qwen2Config(**BASE),
    "qwen2, yarn": Qwen2Config(**BASE, rope_parameters=dict(YARN)),
    "qwen2, window": Qwen2Config(**BASE, use_sliding_window=True, sliding_window=8, max_window_layers=0),
    "qwen3": Qwen3Config(**BASE, head_dim=16, tie_word_embeddings=True),
}


def save_model(folder: Path, config: PreTrainedConfig, **options: Any) -> Path:
    """A random model of `config` with a tokenizer in `folder`; options go to `save_pretrained`."""
    random_model(config).save_pretrained(folder, **options)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def assert_like_torch(found: Checkpoint, path: Path) -> None:
    """Every tensor, the fingerprint and the rotary embedding are those of the torch loader."""
    base = load_base_model(resolve(str(path)), dtype="float32")
    weights = {name: weight.numpy() for name, weight in base.model.named_parameters()}
    assert found.names == weights.keys()
    for name, expected in weights.items():
        tensor = found.tensor(name)
        assert (tensor.dtype, tensor.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(tensor, expected, err_msg=name)
        flat = found.weights.first(name, 37)
        np.testing.assert_array_equal(flat, expected.reshape(-1)[:37], err_msg=name)
    assert found.fingerprint() == base.fingerprint
    assert_shape_like_torch(found, base.model)


def assert_shape_like_torch(found: Checkpoint, model: Any) -> None:
    """The shape says what the model's config and modules say."""
    config, shape = model.config, found.shape
    attention = model.model.layers[0].self_attn
    rotary = model.model.rotary_emb
    assert shape.layers == config.num_hidden_layers
    assert (shape.heads, shape.kv_heads) == (config.num_attention_heads, config.num_key_value_heads)
    assert (shape.head_dim, shape.hidden_size) == (attention.head_dim, config.hidden_size)
    assert (shape.vocabulary_size, shape.intermediate_size) == (config.vocab_size, config.intermediate_size)
    assert shape.norm_epsilon == config.rms_norm_eps
    assert shape.context_length == config.max_position_embeddings
    assert shape.tied == config.tie_word_embeddings
    assert shape.architecture == config.model_type
    assert shape.window == getattr(attention, "sliding_window", getattr(config, "sliding_window", None))
    assert shape.rope_amplitude == rotary.attention_scaling
    np.testing.assert_array_max_ulp(
        np.array(shape.inverse_frequencies, np.float32), rotary.inv_freq.numpy(), maxulp=2
    )
