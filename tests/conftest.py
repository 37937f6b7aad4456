"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2-135M-Instruct GGUF, downloaded once into the user's cache."""
    from medusa_decoding.models import resolve

    path = resolve("smollm2").path
    assert path is not None
    return path
