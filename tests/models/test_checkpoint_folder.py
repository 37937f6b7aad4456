from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GemmaConfig

from medusa_decoding.errors import UserError
from medusa_decoding.models import resolve
from medusa_decoding.models.checkpoint import Unsupported, open_checkpoint

from .gguf_files import random_model
from .llama_models import BASE, CONFIGS, assert_like_torch, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama to spoil."""
    return save_model(tmp_path / "tiny", CONFIGS["llama"])


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace or (None) remove weights; dots in names are written as `__`."""
    path = folder / "model.safetensors"
    weights = load_file(path) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in weights.items() if value is not None}, path)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_is_read_as_torch_reads_it(name: str, tmp_path: Path) -> None:
    path = save_model(tmp_path / "m", CONFIGS[name])
    assert_like_torch(open_checkpoint(resolve(str(path))), path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_becomes_float32(dtype: torch.dtype, folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: weight.to(dtype) for name, weight in load_file(path).items()}, path, {"format": "pt"})
    assert_like_torch(open_checkpoint(resolve(str(folder))), folder)


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m", CONFIGS["qwen2"], max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    assert_like_torch(open_checkpoint(resolve(str(path))), path)
    next(iter(sorted(path.glob("*.safetensors")))).unlink()
    with pytest.raises(UserError, match=r"safetensors is missing; download the model again"):
        open_checkpoint(resolve(str(path)))


def test_a_separate_projection_of_a_tied_config_counts_only_if_it_differs(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m", CONFIGS["qwen3"])
    embedding = load_file(path / "model.safetensors")["model.embed_tokens.weight"]
    edit_weights(path, lm_head__weight=embedding.clone())
    same = open_checkpoint(resolve(str(path)))
    assert (same.shape.tied, "lm_head.weight" in same.names) == (True, False)
    edit_weights(path, lm_head__weight=embedding + 1.0)
    other = open_checkpoint(resolve(str(path)))
    assert (other.shape.tied, "lm_head.weight" in other.names) == (False, True)
    assert other.fingerprint() == same.fingerprint()


def test_weights_that_no_model_has_are_ignored(folder: Path) -> None:
    edit_weights(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))
    assert_like_torch(open_checkpoint(resolve(str(folder))), folder)


def test_the_key_follows_the_content(folder: Path) -> None:
    key = open_checkpoint(resolve(str(folder))).key
    assert len(bytes.fromhex(key)) == 32
    assert open_checkpoint(resolve(str(folder))).key == key
    edit_weights(folder, model__norm__weight=torch.ones(32))
    assert (other := open_checkpoint(resolve(str(folder))).key) != key
    edit_config(folder, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    assert open_checkpoint(resolve(str(folder))).key not in (key, other)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gemma2"}, "architecture 'gemma2'"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"mlp_bias": True}, "biases in its feed-forward layers"),
        ({"attention_bias": True}, "a bias behind its attention"),
        ({"partial_rotary_factor": 0.5}, "heads that are rotated in part"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary positions of type 'dynamic'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rotary positions of type 'longrope'"),
        ({"rope_parameters": {"full_attention": {}}}, "rotary positions that differ from layer to layer"),
        ({"quantization_config": {"quant_method": "gptq"}}, "weights quantised by gptq"),
        ({"head_dim": 12}, "heads of 12 values, no multiple of 8"),
    ],
)
def test_what_the_cpu_engine_lacks_is_named(changes: dict[str, Any], reason: str, folder: Path) -> None:
    edit_config(folder, **changes)
    with pytest.raises(Unsupported, match="use --engine torch") as caught:
        open_checkpoint(resolve(str(folder)))
    assert caught.value.reason == reason
    assert reason in str(caught.value)


@pytest.mark.parametrize("changes", [{"layer_types": ["full_attention", "sliding_attention"]}, {}])
def test_windows_on_some_layers_are_unsupported(changes: dict[str, Any], tmp_path: Path) -> None:
    path = save_model(tmp_path / "m", CONFIGS["qwen2"])
    edit_config(path, use_sliding_window=True, sliding_window=8, max_window_layers=1, layer_types=None)
    edit_config(path, **changes)
    with pytest.raises(Unsupported, match="attention windows on some of its layers"):
        open_checkpoint(resolve(str(path)))


def test_other_containers_and_types_are_unsupported(folder: Path) -> None:
    edit_weights(folder, model__norm__weight=torch.ones(32, dtype=torch.int32))
    with pytest.raises(Unsupported, match="weights of type I32"):
        open_checkpoint(resolve(str(folder)))
    edit_weights(folder, model__embed_tokens__weight=None, embed_tokens__weight=torch.ones(2))
    with pytest.raises(Unsupported, match="without their usual names"):
        open_checkpoint(resolve(str(folder)))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Unsupported, match="not in safetensors files"):
        open_checkpoint(resolve(str(folder)))


def test_another_architecture_is_unsupported_before_its_weights_are_asked_for(tmp_path: Path) -> None:
    random_model(GemmaConfig(**BASE, head_dim=16)).config.save_pretrained(tmp_path)
    with pytest.raises(Unsupported, match="architecture 'gemma'"):
        open_checkpoint(resolve(str(tmp_path)))


DAMAGE = {
    "cut": (
        lambda folder: os.truncate(folder / "model.safetensors", 5000),
        "model.safetensors are damaged .* download",
    ),
    "missing": (
        lambda folder: edit_weights(folder, model__norm__weight=None),
        r"lacks 1 of the model's weights \(model.norm.weight among them\)",
    ),
    "shape": (
        lambda folder: edit_config(folder, intermediate_size=40),
        r"mlp.gate_proj.weight' has shape \(48, 32\), not \(40, 32\)",
    ),
    "layers": (lambda folder: edit_config(folder, num_hidden_layers=2**40), "lacks 1099511627755 of"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: Expecting"),
    "no object": (lambda folder: (folder / "config.json").write_text("[1]"), "config.json holds no object"),
    "text": (lambda folder: edit_config(folder, hidden_size="wide"), "says 'wide' for 'hidden_size'"),
    "zero": (lambda folder: edit_config(folder, num_attention_heads=0), "for 'num_attention_heads'"),
    "odd heads": (lambda folder: edit_config(folder, num_key_value_heads=3), "for 'num_key_value_heads'"),
    "epsilon": (lambda folder: edit_config(folder, rms_norm_eps=float("nan")), "for 'rms_norm_eps'"),
    "outside": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a"}}'),
        ),
        "index.json names no files",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line(name: str, folder: Path) -> None:
    spoil, message = DAMAGE[name]
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoint(resolve(str(folder)))
    assert not isinstance(caught.value, Unsupported)
    assert "\n" not in str(caught.value)


def test_torch_stays_out(folder: Path) -> None:
    code = (
        "import sys; from medusa_decoding.models import resolve\n"
        "from medusa_decoding.models.checkpoint import open_checkpoint\n"
        "open_checkpoint(resolve(sys.argv[1])).fingerprint()\n"
        "sys.exit(' '.join({'torch', 'transformers'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_a_hub_id_is_read_from_the_cache(folder: Path, tmp_path: Path) -> None:
    """In a process of its own, because the Hub's library reads its settings when it is imported."""
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("0" * 40))
    code = (
        "from medusa_decoding.errors import UserError\n"
        "from medusa_decoding.models import resolve\n"
        "from medusa_decoding.models.checkpoint import open_checkpoint\n"
        "print(open_checkpoint(resolve('owner/name')).shape.layers)\n"
        "try: open_checkpoint(resolve('owner/other'))\n"
        "except UserError as error: print(error)"
    )
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    layers, missing = ran.stdout.splitlines()
    assert layers == "2"
    assert "the Hugging Face Hub cannot be reached and owner/other is neither" in missing
