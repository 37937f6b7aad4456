"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2-135M-Instruct GGUF, downloaded once into the user's cache."""
    from medusa_decoding.models import resolve

    path = resolve("smollm2").path
    assert path is not None
    return path


@pytest.fixture(scope="session", autouse=True)
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where profiles of tiny models are kept meanwhile, unless a test names a cache of its own."""
    from medusa_decoding.tuning import cache

    folder, original = tmp_path_factory.mktemp("profiles"), cache.profiles_folder
    with pytest.MonkeyPatch.context() as patch:
        chosen = lambda: original() if os.environ.get("MEDUSA_CACHE") else folder  # noqa: E731
        patch.setattr(cache, "profiles_folder", chosen)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def packed_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the CPU engine keeps weights meanwhile: not among the user's."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        # Without a compiler there is no CPU engine, and nothing to keep.
        with suppress(ImportError):
            patch.setattr("medusa_decoding.generation.on_cpu.packed_folder", lambda: folder)
        yield folder
    shutil.rmtree(folder)
