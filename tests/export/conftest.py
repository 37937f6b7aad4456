"""A tiny base model, plain heads for it, and what they guess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medusa_decoding.decoding.protocols import Context
from medusa_decoding.decoding.tree import Proposals
from medusa_decoding.heads import HeadsConfig, MedusaDrafter, MedusaHeads, save_pretrained
from tests.tiny import HIDDEN_SIZE, VOCABULARY_SIZE, tiny_llama

HEADS, DRAFT = 3, 40

MakeHeads = Callable[..., Path]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose output projection is its own."""
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def lm_head(base: Path) -> torch.Tensor:
    """(V, D), the base model's output projection."""
    from safetensors.torch import load_file

    return load_file(base / "model.safetensors")["lm_head.weight"]


@pytest.fixture
def make_heads(tmp_path: Path) -> MakeHeads:
    """Save random heads for the base model in float32 and return their folder."""

    def make(name: str = "heads", **fields: Any) -> Path:
        values = {
            "num_heads": HEADS,
            "num_layers": 1,
            "hidden_size": HIDDEN_SIZE,
            "vocabulary_size": VOCABULARY_SIZE,
            **fields,
        }
        config = HeadsConfig(**values)
        generator = torch.Generator().manual_seed(3)
        size = config.draft_vocabulary_size
        tokens = None if size is None else torch.randperm(VOCABULARY_SIZE, generator=generator)[:size]
        heads = MedusaHeads(config, tokens)
        with torch.no_grad():
            for parameter in heads.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        save_pretrained(heads, tmp_path / name, dtype="float32")
        return tmp_path / name

    return make


def hidden_states(count: int = 16) -> torch.Tensor:
    """(n, D) hidden states."""
    return torch.randn(count, HIDDEN_SIZE, generator=torch.Generator().manual_seed(5))


def guesses(heads: MedusaHeads, lm_head: torch.Tensor, top_k: int = 10) -> list[Proposals]:
    """What the heads propose after each of `hidden_states`."""
    heads.bind(lm_head)
    return MedusaDrafter(heads, top_k=top_k).propose([Context([2, 7], state) for state in hidden_states()])


def assert_same_tokens(one: list[Proposals], other: list[Proposals]) -> None:
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.tokens, second.tokens)
