from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.errors import UserError


def test_written_states_are_read_back_by_a_new_cache(tmp_path: Path) -> None:
    states = {"1": torch.randn(3, 4), "a/2": torch.randn(1, 4)}
    HiddenCache(tmp_path, "base").write(states)
    cache = HiddenCache(tmp_path, "base")
    assert len(cache) == 2 and "1" in cache and "2" not in cache
    found = cache.read(["a/2", "1"])
    assert all(torch.equal(found[key], states[key].half()) for key in states)


def test_later_shard_wins(tmp_path: Path) -> None:
    cache = HiddenCache(tmp_path, "base")
    cache.write({"1": torch.zeros(1, 2)})
    cache.write({"1": torch.ones(1, 2)})
    for one in (cache, HiddenCache(tmp_path, "base")):
        assert one.read(["1"])["1"].tolist() == [[1, 1]]


def test_shards_are_numbered_on(tmp_path: Path) -> None:
    save_file({"5": torch.ones(1, 2)}, tmp_path / "hidden-00041.safetensors")
    cache = HiddenCache(tmp_path, "base")
    cache.write({"6": torch.ones(1, 2)})
    assert (tmp_path / "hidden-00042.safetensors").is_file()
    assert cache.read(["5", "6"]).keys() == {"5", "6"}


def test_values_beyond_float16_are_kept(tmp_path: Path) -> None:
    cache = HiddenCache(tmp_path, "base")
    cache.write({"1": torch.tensor([[1e6, 1.0]])})
    assert cache.read(["1"])["1"].tolist() == [[1e6, 1.0]]


def test_other_base_model_is_refused(tmp_path: Path) -> None:
    HiddenCache(tmp_path, "base")
    with pytest.raises(UserError, match="hidden states of another base model"):
        HiddenCache(tmp_path, "other")


def test_other_answers_file_is_refused_where_it_is_known(tmp_path: Path) -> None:
    HiddenCache(tmp_path, "base", "a.jsonl")
    HiddenCache(tmp_path, "base", "a.jsonl")
    HiddenCache(tmp_path, "base")
    with pytest.raises(UserError, match=r"answers a\.jsonl, not b\.jsonl"):
        HiddenCache(tmp_path, "base", "b.jsonl")


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "hidden-00000.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"hidden-00000\.safetensors is damaged"):
        HiddenCache(tmp_path, "base")
