from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from medusa_decoding.errors import UserError
from medusa_decoding.models.config_fields import Fields
from medusa_decoding.models.llama_rope import rope_of

from .llama_models import LLAMA3

WITHOUT_BASE = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
LINEAR = {"type": "linear", "factor": 2.5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "SmolLM2": (64, {"rope_theta": 100000.0}),
    "nothing said": (64, {}),
    "null": (64, {"rope_theta": 10000.0, "rope_scaling": None}),
    "Llama 3.1, transformers 4": (
        128,
        {"rope_theta": 500000.0, "rope_scaling": WITHOUT_BASE},
    ),
    "Llama 3.1, transformers 5": (128, {"rope_parameters": LLAMA3}),
    "Llama 3.2": (64, {"rope_parameters": {**LLAMA3, "factor": 32.0}}),
    "linear": (128, {"rope_theta": 10000.0, "rope_scaling": LINEAR}),
    "linear, whole numbers": (
        80,
        {"rope_scaling": {"rope_type": "linear", "factor": 4}, "rope_theta": 10000},
    ),
    "Qwen2.5, yarn": (128, {"rope_theta": 1000000.0, "rope_scaling": YARN}),
    "yarn, own factor": (128, {"rope_scaling": {**YARN, "attention_factor": 0.7}}),
    "yarn, DeepSeek": (64, {"rope_scaling": {**YARN, "factor": 40, "mscale": 0.707, "mscale_all_dim": 1.0}}),
    "yarn, bounds": (96, {"rope_scaling": {**YARN, "beta_fast": 16, "beta_slow": 2, "truncate": False}}),
    "yarn, factor from the lengths": (64, {"rope_scaling": {**YARN, "factor": None}}),
    "yarn, length outside": (64, {"rope_scaling": YARN, "original_max_position_embeddings": 4096}),
    "yarn, no length": (64, {"rope_scaling": {"type": "yarn", "factor": 2.0}}),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    # transformers writes defaults into what it is given.
    head_dim, given = copy.deepcopy(CASES[name])
    sizes: dict[str, Any] = {
        "hidden_size": head_dim,
        "num_attention_heads": 1,
        "max_position_embeddings": 131072,
    }
    reference = LlamaRotaryEmbedding(LlamaConfig.from_dict(copy.deepcopy({**sizes, **given})))
    frequencies, amplitude = rope_of(Fields({**sizes, **given}, "m"), head_dim)
    assert amplitude == reference.attention_scaling
    expected = reference.inv_freq.numpy()
    found = np.array(frequencies, np.float32)
    # Powers are rounded correctly here; torch's are off by one bit for a few of them, which dividing keeps.
    np.testing.assert_array_max_ulp(found, expected, maxulp=2 if "yarn" not in name else 4)
    assert np.mean(found == expected) > 0.9


def test_the_frequencies_are_float32() -> None:
    frequencies, _ = rope_of(Fields({"max_position_embeddings": 8, **CASES["SmolLM2"][1]}, "m"), 64)
    assert frequencies == tuple(torch.tensor(frequencies, dtype=torch.float32).tolist())
    assert len(frequencies) == 32


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"type": 3}}, "type"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor"),
        ({"rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_parameters": {**LLAMA3, "low_freq_factor": 0}}, "high_freq_factor"),
        ({"rope_scaling": {**YARN, "beta_fast": -1}}, "beta_fast"),
        ({"rope_scaling": {**YARN, "factor": -1.0}}, "factor"),
        ({"rope_scaling": {**YARN, "truncate": 1}}, "truncate"),
        ({"rope_scaling": YARN, "rope_theta": 1.0}, "beta_fast"),
        ({"rope_theta": 1e-300}, "rope_parameters"),
    ],
)
def test_nonsense_is_one_line(given: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"for '{key}', which makes no sense") as caught:
        rope_of(Fields({"max_position_embeddings": 8, **given}, "m"), 64)
    assert "\n" not in str(caught.value)
