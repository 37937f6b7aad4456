"""A stand-in for llama-cpp-python, and a tiny GGUF file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import LlamaConfig

from tests.models.gguf_files import random_model, write_gguf
from tests.models.llama_models import TOKENS

FAKE = Path(__file__).with_name("fake_llama")


@pytest.fixture
def fake_llama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Programs that are started find the stand-in; returns the cache folder meanwhile."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(FAKE), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FAKE_LLAMA", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights that calls itself Q4_1."""
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, random_model(config), extra={"general.file_type": 3})
