from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from transformers import Gemma2Config, LlamaConfig

from medusa_decoding.errors import UserError
from medusa_decoding.models import load_base_model, resolve
from medusa_decoding.models.checkpoint import Unsupported, open_checkpoint

from .gguf_files import random_model, write_gguf
from .llama_models import BASE, CONFIGS, assert_like_torch
from .test_gguf_weights import llama3_divisors

YARN = {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 64}
EXTRA: dict[str, dict[str, Any]] = {
    "llama 3.1": {"tensors": {"rope_freqs.weight": llama3_divisors(8)}},
    "qwen2, yarn": {"extra": {f"qwen2.rope.{key}": value for key, value in YARN.items()}},
}
# The converter writes no windows for these, and Mistral as Llama.
NAMES = [name for name in CONFIGS if "window" not in name and name != "mistral"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_as_torch_reads_it(name: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(CONFIGS[name]), **EXTRA.get(name, {}))
    assert_like_torch(open_checkpoint(resolve(str(path))), path)


def test_biases_of_query_key_and_value_are_read(tmp_path: Path) -> None:
    biases = {f"blk.{i}.attn_{part}.bias": np.ones(width, np.float32) for i in range(2)
              for part, width in (("q", 32), ("k", 16), ("v", 16))}  # fmt: skip
    path = write_gguf(tmp_path / "m.gguf", random_model(CONFIGS["llama"]), tensors=biases)
    checkpoint = open_checkpoint(resolve(str(path)))
    np.testing.assert_array_equal(checkpoint.tensor("model.layers.1.self_attn.k_proj.bias"), np.ones(16))


@pytest.mark.parametrize(
    ("config", "tensors", "reason"),
    [
        (Gemma2Config(**BASE, head_dim=16, sliding_window=8), {}, "architecture 'gemma2'"),
        (LlamaConfig(**BASE, attention_bias=True), {}, "a bias behind its attention"),
        (LlamaConfig(**BASE, mlp_bias=True), {}, "biases in its feed-forward layers"),
        (
            LlamaConfig(**BASE),
            {"rope_freqs.weight": np.array([1, 3, 7, 2], np.float32)},
            "rotary positions of type 'longrope'",
        ),
    ],
)
def test_what_the_cpu_engine_lacks_is_named(
    config: Any, tensors: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(config), tensors=tensors)
    with pytest.raises(Unsupported) as caught:
        open_checkpoint(resolve(str(path)))
    assert caught.value.reason == reason


def test_damage_is_one_line(tmp_path: Path) -> None:
    model = random_model(CONFIGS["llama"])
    path = write_gguf(
        tmp_path / "m.gguf", model, tensors={"blk.0.mystery.weight": np.ones((1, 2), np.float32)}
    )
    with pytest.raises(UserError, match="has no place in a model of type llama"):
        open_checkpoint(resolve(str(path)))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="ends beyond the end of the file"):
        open_checkpoint(resolve(str(path)))


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(CONFIGS["llama"]))
    key = open_checkpoint(resolve(str(path))).key
    assert open_checkpoint(resolve(str(path))).key == key
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert open_checkpoint(resolve(str(path))).key != key


@pytest.mark.real
def test_smollm2_is_read_without_torch(smollm2_path: Path) -> None:
    code = (
        "import sys; from medusa_decoding.models import resolve\n"
        "from medusa_decoding.models.checkpoint import open_checkpoint\n"
        "found = open_checkpoint(resolve('smollm2'))\n"
        "print(found.fingerprint(), found.key == resolve('smollm2').alias.sha256)\n"
        "sys.exit(' '.join({'torch', 'transformers'} & sys.modules.keys()) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The same as in the packaged heads' medusa_config.json.
    assert ran.stdout.split() == ["bb1ba7c9af6bdbe2", "True"]


@pytest.mark.real
def test_smollm2_is_read_as_torch_reads_it(smollm2_path: Path) -> None:
    found = open_checkpoint(resolve(str(smollm2_path)))
    base = load_base_model(resolve(str(smollm2_path)))
    for name, weight in base.model.named_parameters():
        np.testing.assert_array_equal(found.tensor(name), weight.numpy(), err_msg=name)
    assert GGMLQuantizationType.Q4_1 in {
        info.type
        for info in found.weights.file.tensors.values()  # type: ignore[attr-defined]
    }
