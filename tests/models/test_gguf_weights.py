from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from medusa_decoding.models import BaseModel, load_base_model, resolve
from medusa_decoding.models.gguf_reader import GgufFile

from .gguf_files import DATA, random_model, write_gguf

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


@dataclass
class Case:
    config: PreTrainedConfig
    keys: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)


def scaled(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def llama3_divisors(count: int) -> np.ndarray[Any, Any]:
    """Written from the description in the Llama 3.1 report: factor 8, original context 8192, bounds 1 and
    4.
    """
    divisors = []
    for index in range(count):
        wave = 2 * math.pi * 500000.0 ** (index / count)
        share = min(max((8192 / wave - 1) / 3, 0.0), 1.0)
        divisors.append(1 / ((1 - share) / 8 + share))
    return np.array(divisors, np.float32)


SHORT, LONG = [1.0, 1.25, 1.5, 2.0], [1.0, 4.0, 8.0, 16.0]
CASES = {
    "llama": Case(LlamaConfig(**BASE)),
    "llama, tied, biased, wide heads": Case(
        LlamaConfig(**BASE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=16)
    ),
    "llama, linear": Case(
        LlamaConfig(**BASE, **scaled("linear", factor=4.0)),
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    ),
    "llama 3.1": Case(
        LlamaConfig(
            **BASE | {"head_dim": 16},
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        {},
        {"rope_freqs.weight": llama3_divisors(8)},
    ),
    "qwen2": Case(Qwen2Config(**BASE)),
    "qwen2, yarn": Case(
        Qwen2Config(**BASE, **scaled("yarn", factor=4.0, original_max_position_embeddings=64)),
        {
            "qwen2.rope.scaling.type": "yarn",
            "qwen2.rope.scaling.factor": 4.0,
            "qwen2.rope.scaling.original_context_length": 64,
        },
    ),
    "qwen3": Case(Qwen3Config(**BASE, head_dim=16, tie_word_embeddings=True)),
    "phi3": Case(Phi3Config(**BASE, original_max_position_embeddings=256)),
    "phi3, long": Case(
        Phi3Config(
            **BASE,
            original_max_position_embeddings=64,
            **scaled("longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=64),
        ),
        {"phi3.rope.scaling.original_context_length": 64},
        {
            "rope_factors_short.weight": np.array(SHORT, np.float32),
            "rope_factors_long.weight": np.array(LONG, np.float32),
        },
    ),
    "gemma": Case(GemmaConfig(**BASE, head_dim=16)),
    "gemma2": Case(Gemma2Config(**BASE, head_dim=16, query_pre_attn_scalar=16, sliding_window=8)),
    "gemma3": Case(
        Gemma3TextConfig(
            **BASE | {"num_hidden_layers": 6}, head_dim=16, query_pre_attn_scalar=16, sliding_window=8
        )
    ),
}


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, TOKENS, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def loaded(path: Path) -> BaseModel:
    base = load_base_model(resolve(str(path)))
    base.model.set_attn_implementation("eager")
    return base


@pytest.mark.parametrize("name", CASES)
def test_a_model_written_and_read_is_the_same(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    original = random_model(case.config)
    base = loaded(write_gguf(tmp_path / "model.gguf", original, extra=case.keys, tensors=case.tensors))
    assert type(base.model) is type(original)
    assert not base.model.training
    # Gemma's norms lose the last bits when the converter adds one to them.
    tolerance = 1e-5 if "gemma" in name else 0.0
    for (key, expected), (other, found) in zip(
        original.state_dict().items(), base.model.state_dict().items(), strict=True
    ):
        assert key == other
        torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)
    torch.testing.assert_close(logits(base.model), logits(original), rtol=0.0, atol=tolerance)


def test_unusual_divisors_are_kept_as_they_are(tmp_path: Path) -> None:
    original = random_model(LlamaConfig(**BASE))
    divisors = np.array([1.0, 3.0, 7.0, 2.0], np.float32)
    base = loaded(write_gguf(tmp_path / "m.gguf", original, tensors={"rope_freqs.weight": divisors}))
    frequencies = 1.0 / (divisors * 10000.0 ** (np.arange(4) / 4))
    np.testing.assert_allclose(base.model.model.rotary_emb.inv_freq.numpy(), frequencies, rtol=1e-6)
    original.model.rotary_emb.inv_freq = torch.tensor(frequencies, dtype=torch.float32)
    torch.testing.assert_close(logits(base.model), logits(original), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"llama.block_count": 3}, "announces 3 blocks and holds 2"),
        ({"llama.block_count": 2**31}, "announces 2147483648 blocks"),
        ({"llama.feed_forward_length": 49}, r"shape \(48, 32\), not \(49, 32\)"),
        ({"llama.attention.head_count": 0}, "zero under 'attention.head_count'"),
        ({"llama.attention.head_count_kv": 4}, r"blk.0.attn_k.weight' has shape \(16, 32\), not \(32, 32\)"),
        ({"llama.context_length": "long"}, "no count under 'context_length'"),
        ({"llama.rope.freq_base": float("nan")}, "no number under 'rope.freq_base'"),
        ({"llama.rope.freq_base": -1.0}, "rotary positions that make no sense"),
        ({"llama.rope.scaling.type": "exotic"}, "rotary scaling 'exotic' is not read from GGUF"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.attention.value_length": 4}, "keys and values differ in width"),
        ({"split.count": 2}, "join them with `llama-gguf-split --merge`"),
        ({"general.architecture": "mamba"}, "architecture 'mamba'; GGUF files of gemma, .*llama.* are read"),
    ],
)
def test_headers_that_lie_are_one_line(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    from medusa_decoding.models.gguf_config import config_of
    from medusa_decoding.models.gguf_weights import state_dict_of

    file = GgufFile(write_gguf(tmp_path / "m.gguf", random_model(LlamaConfig(**BASE))))
    file.metadata.update(keys)
    with pytest.raises(UserError, match=message) as caught:
        state_dict_of(file, config_of(file), torch.float32)
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    model = random_model(LlamaConfig(**BASE))
    extra = {"blk.0.mystery.weight": np.zeros((2, 2), np.float32)}
    with pytest.raises(UserError, match=r"'blk.0.mystery.weight' has no place in a model of type llama"):
        loaded(write_gguf(tmp_path / "m.gguf", model, tensors=extra))
    file = GgufFile(write_gguf(tmp_path / "n.gguf", model))
    del file.tensors["blk.1.ffn_up.weight"]
    from medusa_decoding.models.gguf_config import config_of
    from medusa_decoding.models.gguf_weights import state_dict_of

    with pytest.raises(UserError, match=r"1 weights are missing, model.layers.1.mlp.up_proj.weight"):
        state_dict_of(file, config_of(file), torch.float32)
