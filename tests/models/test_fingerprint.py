from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel

from medusa_decoding.models import load_base_model, resolve
from medusa_decoding.models.fingerprint import _as_bfloat16, _sample, fingerprint

from .gguf_files import DATA, GgufFile, random_model, write_gguf

TOKENS = len(GgufFile(DATA / "byte_level.gguf").metadata["tokenizer.ggml.tokens"])


def small_model(*, tied: bool = False) -> PreTrainedModel:
    return random_model(
        LlamaConfig(
            vocab_size=TOKENS,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    )


@pytest.mark.parametrize("tied", [True, False])
def test_the_container_does_not_matter(tied: bool, tmp_path: Path) -> None:
    model = small_model(tied=tied)
    path = write_gguf(tmp_path / "m.gguf", model)
    assert load_base_model(resolve(str(path))).fingerprint == fingerprint(model)


def test_a_separate_copy_of_the_tied_embedding_does_not_matter() -> None:
    tied, separate = small_model(tied=True), small_model(tied=False)
    separate.load_state_dict(tied.state_dict())
    assert fingerprint(tied) == fingerprint(separate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_does_not_matter(dtype: torch.dtype) -> None:
    model = small_model()
    before = fingerprint(model)
    assert fingerprint(model.to(dtype)) == before


def test_float16_does_not_matter_for_weights_that_were_short() -> None:
    model = small_model().to(torch.bfloat16)
    before = fingerprint(model)
    assert fingerprint(model.to(torch.float16)) == before


@pytest.mark.parametrize(
    "part", ["embed_tokens", "layers.1.mlp.down_proj", "model.norm", "layers.0.self_attn.q_proj"]
)
def test_a_change_in_any_part_shows(part: str) -> None:
    model = small_model()
    before = fingerprint(model)
    with torch.no_grad():
        (weight,) = [weight for name, weight in model.named_parameters() if part in name]
        weight.add_(0.01 * torch.randn_like(weight))
    assert fingerprint(model) != before


def test_it_is_sixteen_hexadecimal_digits() -> None:
    assert len(bytes.fromhex(fingerprint(small_model()))) == 8


def sample_by_torch(values: torch.Tensor) -> bytes:
    places = torch.linspace(0, len(values) - 1, min(8, len(values))).long()
    return (values[places].to(torch.bfloat16).double() * 4096).round().long().numpy().tobytes()


@pytest.mark.parametrize("length", [*range(1, 40), 64, 576, 577, 1000, 4095, 4096])
def test_samples_are_those_that_torch_takes(length: int) -> None:
    values = torch.randn(length, generator=torch.Generator().manual_seed(length)) * 3
    assert _sample(values.numpy()) == sample_by_torch(values)


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    bits = torch.arange(-(2**31), 2**31, 65537 * 7, dtype=torch.int64).to(torch.int32)
    ties = (torch.arange(0, 2**15) * 65536 + 32768).to(torch.int32)
    values = torch.cat([bits, ties, ties + 1, ties - 1]).view(torch.float32)
    expected = values.to(torch.bfloat16).float()
    np.testing.assert_array_equal(_as_bfloat16(values.numpy()), expected.numpy())
