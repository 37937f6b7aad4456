"""The heads that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from medusa_decoding.generation.packaged import heads_location, heads_name, packaged_heads
from medusa_decoding.heads.plain import read_arrays
from medusa_decoding.models import ALIASES, Alias, Source


@pytest.mark.parametrize("folder", packaged_heads().values(), ids=lambda folder: folder.name)
def test_they_are_whole_small_and_say_how_they_were_made(folder: Path) -> None:
    config, state = read_arrays(folder)
    assert {name: array.shape for name, array in state.items()} == dict(config.expected_shapes())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert record["finished"] and record["base"]["fingerprint"] == config.base_fingerprint
    assert record["data"]["validation_positions"] > 5000


@pytest.mark.parametrize("alias", ALIASES.values(), ids=lambda alias: alias.name)
def test_each_alias_has_heads_of_its_own(alias: Alias) -> None:
    assert alias.default_heads is not None
    location = packaged_heads()[alias.default_heads]
    fingerprint = read_arrays(location)[0].base_fingerprint
    # The same weights under another name find them by the fingerprint.
    other = Source("folder", "other")
    assert fingerprint and heads_location("auto", other, fingerprint) == location
    assert heads_location("auto", other, "0" * 16) is None


def test_a_checkpoint_that_holds_heads_brings_them_and_one_that_only_says_so_does_not(tmp_path: Path) -> None:
    source = Source("folder", "model", path=tmp_path)
    (tmp_path / "config.json").write_text('{"medusa_num_heads": 2}')
    assert heads_location("auto", source, "0" * 16) is None
    save_file({"model.norm.weight": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    assert heads_location("auto", source, "0" * 16) is None
    save_file({"medusa_head.0.0.linear.bias": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    assert heads_location("auto", source, "0" * 16) == tmp_path
    assert heads_name("auto", tmp_path) == str(tmp_path)
    assert heads_name("auto", packaged_heads()["smollm2"]) == "packaged:smollm2"
    assert heads_location(None, source, "0" * 16) is None
