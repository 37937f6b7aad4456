"""The base model's part of an export, from every kind of source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Gemma2Config

from medusa_decoding.export.base import name_elsewhere, projection_of, source_of, write_base
from medusa_decoding.heads import HeadsConfig
from medusa_decoding.models import ALIASES, load_base_model, resolve
from medusa_decoding.models.checkpoint import Unsupported, open_checkpoint
from tests.models.gguf_files import random_model, write_gguf
from tests.models.llama_models import BASE, CONFIGS, save_model

HEADS = HeadsConfig(num_heads=1, num_layers=1, hidden_size=8, vocabulary_size=None)


def test_an_alias_is_known_elsewhere_by_what_it_was_quantised_from() -> None:
    assert all(alias.hub_id and alias.plain_heads for alias in ALIASES.values())
    assert name_elsewhere("smollm2") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert [name_elsewhere(name) for name in ("some/base", "./folder", None)] == [
        "some/base",
        "./folder",
        None,
    ]


@pytest.mark.parametrize("name", ["llama", "llama, tied, wide heads"])
@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_the_projection_is_that_of_the_model_in_memory(tmp_path: Path, kind: str, name: str) -> None:
    config = CONFIGS[name]
    if kind == "gguf":
        path = write_gguf(tmp_path / "m.gguf", random_model(config))
    else:
        path = save_model(tmp_path / "m", config)
    source = resolve(str(path))
    rows, bias = projection_of(source, HEADS)
    assert bias is None
    expected = load_base_model(source).model.get_output_embeddings().weight
    assert torch.equal(rows, expected.float())
    rows.zero_()


def test_models_that_the_cpu_engine_does_not_know_are_opened_by_transformers(tmp_path: Path) -> None:
    config = Gemma2Config(**BASE, head_dim=16, sliding_window=8)
    source = resolve(str(write_gguf(tmp_path / "m.gguf", random_model(config))))
    with pytest.raises(Unsupported):
        open_checkpoint(source)
    rows, _ = projection_of(source, HEADS)
    assert torch.equal(rows, load_base_model(source).model.get_output_embeddings().weight)


def test_a_gguf_file_becomes_a_folder_with_the_same_weights(tmp_path: Path) -> None:
    source = resolve(str(write_gguf(tmp_path / "m.gguf", random_model(CONFIGS["llama"]))))
    write_base(source, tmp_path / "folder")
    written = load_base_model(resolve(str(tmp_path / "folder")))
    assert written.fingerprint == load_base_model(source).fingerprint
    assert written.tokenizer.encode("One two") == load_base_model(source).tokenizer.encode("One two")


def test_a_folder_is_copied_without_what_is_no_model(base: Path, tmp_path: Path) -> None:
    origin = Path(shutil.copytree(base, tmp_path / "origin"))
    for name in ("medusa.bin", "consolidated.safetensors", "modeling.py", "notes.txt"):
        (origin / name).write_text("not ours")
    config = json.loads((origin / "config.json").read_text())
    write_base(source_of(str(origin), HEADS), tmp_path / "folder")
    found = {path.name for path in (tmp_path / "folder").iterdir()}
    assert found == {path.name for path in base.iterdir()}
    assert json.loads((tmp_path / "folder" / "config.json").read_text()) == config
    one, other = (load_file(folder / "model.safetensors") for folder in (origin, tmp_path / "folder"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
