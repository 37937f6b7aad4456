"""A tiny model with heads, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from medusa_decoding.generation import Medusa, load
from tests.tiny import tiny_heads, tiny_llama


@pytest.fixture(scope="session")
def tiny_medusa(tmp_path_factory: pytest.TempPathFactory) -> Medusa:
    """A tiny Llama with a context of 256 tokens and random heads that fit it, in float64."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    model, heads = tiny_llama(folder / "model"), tiny_heads(folder / "heads")
    return load(str(model), heads=heads, dtype="float64", tree=6)
