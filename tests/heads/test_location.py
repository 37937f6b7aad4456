"""Heads on the Hub, as its stand-in gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medusa_decoding.errors import UserError
from medusa_decoding.heads import from_pretrained
from medusa_decoding.heads.formats import v1, vllm
from medusa_decoding.heads.location import files_of, folder_of
from medusa_decoding.heads.plain import read_arrays
from tests.hub.stand_in import Files, StandIn

from .conftest import MakeHeads
from .formats.test_full import inside
from .formats.test_full import write as write_whole

OTHERS = {"pytorch_model.bin": b"gigabytes", "checkpoint.pt": b"optimiser", "hidden/1.safetensors": b"cache"}


@pytest.fixture
def files(make_heads: MakeHeads, tmp_path: Path) -> Files:
    """Heads in this project's layout, and more."""
    make_heads().save_pretrained(tmp_path / "made")
    beside = {"README.md": b"# Heads\n", "training.json": b"{}", "tuning.json": b"{ }"}
    return {**read(tmp_path / "made"), **beside, **OTHERS}


def read(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetched(hub: StandIn) -> set[str]:
    """Files whose content was asked for."""
    return {
        said.split("/", 5)[-1] for said, _ in hub.requests if said.startswith("GET") and "/resolve/" in said
    }


def test_heads_come_with_their_records_and_nothing_else(hub: StandIn, files: Files) -> None:
    hub.add("me/heads", files)
    folder = folder_of("me/heads")
    assert set(files_of(folder)) == fetched(hub) == files.keys() - OTHERS.keys()
    assert all((folder / name).read_bytes() == files[name] for name in files_of(folder))
    hub.requests.clear()
    assert folder_of("me/heads") == folder
    assert fetched(hub) == set()


def test_a_revision_is_a_branch_or_a_commit(
    hub: StandIn, files: Files, make_heads: MakeHeads, tmp_path: Path
) -> None:
    repo = hub.add("me/heads", files)
    first = repo.refs["main"]
    make_heads(num_heads=2).save_pretrained(tmp_path / "other")
    repo.commit("two", read(tmp_path / "other"), "two heads")
    counts = {
        name: read_arrays(f"me/heads{name}")[0].num_heads for name in ("", "@two", f"@{first}", "@main")
    }
    assert counts == {"": 3, "@two": 2, f"@{first}": 3, "@main": 3}
    with pytest.raises(UserError, match="no such branch, tag or commit as me/heads@three"):
        read_arrays("me/heads@three")


def test_other_layouts_are_found_and_a_base_model_is_not_fetched(
    hub: StandIn, make_heads: MakeHeads, tmp_path: Path
) -> None:
    heads = make_heads(projection="own")
    for layout in (v1, vllm):
        folder = tmp_path / layout.__name__
        layout.save(heads, folder)
        hub.add(f"me/{folder.suffix[1:]}", {**read(folder), **OTHERS})
        loaded = from_pretrained(f"me/{folder.suffix[1:]}")
        assert all(
            torch.equal(one, other)
            for one, other in zip(loaded.state_dict().values(), heads.state_dict().values(), strict=True)
        )
    hub.requests.clear()
    hub.add(
        "me/base", {"config.json": json.dumps({"model_type": "llama"}).encode(), "model.safetensors": b"GB"}
    )
    with pytest.raises(UserError, match="No Medusa heads in"):
        from_pretrained("me/base")
    assert fetched(hub) == {"config.json"}


def test_a_download_that_breaks_is_taken_up_where_it_broke(
    hub: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("me/heads", files)
    # Of the chunk that broke nothing is kept; it has 10 MB otherwise.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64)
    weights = files["medusa_heads.safetensors"]
    hub.break_after["medusa_heads.safetensors"] = [len(weights) // 2]
    folder = folder_of("me/heads")
    assert (folder / "medusa_heads.safetensors").read_bytes() == weights
    asked = [part for said, part in hub.requests if said.endswith("medusa_heads.safetensors") and part]
    assert asked == [f"bytes={len(weights) // 2 // 64 * 64}-"]


def test_after_a_kill_whole_files_stay(hub: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/heads", files)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", stopped_at("medusa_heads.safetensors", patch))
        with pytest.raises(KeyboardInterrupt):
            folder_of("me/heads")
    hub.requests.clear()
    folder = folder_of("me/heads")
    assert (folder / "medusa_heads.safetensors").read_bytes() == files["medusa_heads.safetensors"]
    assert "medusa_config.json" not in fetched(hub)


def stopped_at(name: str, patch: pytest.MonkeyPatch) -> object:
    """As downloads go, but for one that is interrupted when the others are done."""
    import time

    from huggingface_hub import file_download

    original = file_download.http_get

    def get(url: str, *arguments: object, **named: object) -> None:
        if url.endswith(name):
            time.sleep(0.5)
            raise KeyboardInterrupt
        original(url, *arguments, **named)  # type: ignore[arg-type]

    return get


def test_without_a_network_the_cache_does(
    hub: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("me/heads", files)
    folder = folder_of("me/heads")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert folder_of("me/heads") == folder
    with pytest.raises(UserError, match="cannot be reached and me/other is neither a local folder") as caught:
        folder_of("me/other")
    assert hub.requests == [] and "\n" not in str(caught.value)


def test_why_the_hub_gives_nothing_is_one_line(
    hub: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("someone/secret", files, private=True)
    hub.add("me/heads", files)
    for name in ("me/absent", "someone/secret"):
        says(name, f"there is no {name} on the Hub; check the spelling")
    says("me/-", "'me/-' is no Hub id; give owner/name")
    hub.status = 403
    says("me/heads", "does not let this account have me/heads")
    hub.status = 503
    says("me/heads", "the Hub answers 503 to me/heads")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    says("me/heads", "cannot be reached and me/heads is neither")


def says(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        folder_of(name)
    assert "\n" not in str(caught.value)


def test_heads_among_a_base_models_weights_are_not_files_of_their_own(tmp_path: Path) -> None:
    """Their file is gigabytes of a base model, or, in shards, no file that the layout names."""
    write_whole(tmp_path, inside(2), num_hidden_layers=2)
    with pytest.raises(UserError, match=r"among the base model's weights.*medusa convert.*hf upload"):
        files_of(tmp_path)
