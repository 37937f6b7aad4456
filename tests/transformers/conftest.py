"""Tiny models, and heads for them that guess at random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medusa_decoding.heads import HeadsConfig, MedusaHeads, save_pretrained
from tests.engines.tiny_models import SIZES, VOCABULARY


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads for the models of `tests.engines.tiny_models`."""
    folder = tmp_path_factory.mktemp("heads")
    torch.manual_seed(2)
    made = MedusaHeads(
        HeadsConfig(
            num_heads=3,
            num_layers=1,
            hidden_size=SIZES["hidden_size"],
            vocabulary_size=VOCABULARY,
            condition="root",
        )
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.2)
    save_pretrained(made, folder)
    return folder
