"""Tiny heads with random weights, and the base model's part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from medusa_decoding.heads import HeadsConfig, MedusaHeads

HIDDEN, VOCABULARY, DRAFT = 6, 23, 9

MakeHeads = Callable[..., MedusaHeads]


@pytest.fixture
def lm_head() -> torch.Tensor:
    """(V, D) projection of the base model."""
    return torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def embedding() -> torch.Tensor:
    """(V, D) input embedding of the base model."""
    return torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def make_heads(lm_head: torch.Tensor, embedding: torch.Tensor) -> MakeHeads:
    """Make bound heads of the given config; `zero=True` leaves them as they are made."""

    def make(*, zero: bool = False, dtype: torch.dtype = torch.float32, **fields: Any) -> MedusaHeads:
        values = {
            "num_heads": 3, "num_layers": 1, "hidden_size": HIDDEN, "vocabulary_size": VOCABULARY, **fields
        }  # fmt: skip
        config = HeadsConfig(**values)
        generator = torch.Generator().manual_seed(3)
        token_map = None
        if config.draft_vocabulary_size is not None:
            token_map = torch.randperm(VOCABULARY, generator=generator)[: config.draft_vocabulary_size]
        heads = MedusaHeads(config, token_map)
        if not zero:
            with torch.no_grad():
                for parameter in heads.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        heads.to(dtype)
        heads.bind(lm_head, embedding)
        return heads

    return make
