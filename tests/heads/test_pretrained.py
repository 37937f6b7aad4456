from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from medusa_decoding.errors import UserError
from medusa_decoding.heads import (
    HeadsConfig,
    MedusaHeads,
    check_fingerprint,
    from_pretrained,
    save_pretrained,
)
from medusa_decoding.heads.state import state_of

from .conftest import DRAFT, HIDDEN, VOCABULARY, MakeHeads

CONFIGS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "condition": "root", "draft_vocabulary_size": DRAFT, "calibration": [1.0, 1.25, 1.5]},
    {"projection": "own", "base_model": "some/model", "base_fingerprint": "abc"},
    {"num_layers": 0},
]


@pytest.mark.parametrize("fields", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_heads_come_back_bit_for_bit(
    make_heads: MakeHeads, tmp_path: Path, fields: dict[str, Any], dtype: str
) -> None:
    heads = make_heads(**fields)
    heads.save_pretrained(tmp_path, dtype=dtype, extra_files={"README.md": "# Heads\n"})
    loaded = MedusaHeads.from_pretrained(tmp_path, dtype=getattr(torch, dtype))
    assert loaded.config == heads.config
    expected = state_of(heads, getattr(torch, dtype))
    found = state_of(loaded)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (tmp_path / "README.md").read_text() == "# Heads\n"


def test_the_base_models_weights_are_not_written(make_heads: MakeHeads, tmp_path: Path) -> None:
    from safetensors import safe_open

    save_pretrained(make_heads(condition="root", draft_vocabulary_size=DRAFT), tmp_path)
    with safe_open(tmp_path / "medusa_heads.safetensors", framework="pt") as file:
        names = set(file.keys())
    per_head = {"0.linear.weight", "0.linear.bias", "0.root.weight"}
    assert names == {f"{head}.{name}" for head in range(3) for name in per_head} | {"token_map"}


def test_values_that_fp16_cannot_hold_are_refused(make_heads: MakeHeads, tmp_path: Path) -> None:
    heads = make_heads()
    with torch.no_grad():
        heads.blocks[0].bias[1, 0] = 1e6
    with pytest.raises(UserError, match=r"1\.0\.linear\.bias.*float32"):
        save_pretrained(heads, tmp_path)
    save_pretrained(heads, tmp_path, dtype="float32")


def test_an_unknown_dtype_is_refused(make_heads: MakeHeads, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"int3.*float16"):
        save_pretrained(make_heads(), tmp_path, dtype="int3")


def test_a_place_without_heads_names_the_files_looked_for(tmp_path: Path) -> None:
    for location in (tmp_path, tmp_path / "absent", "absent"):
        with pytest.raises(UserError) as caught:
            from_pretrained(location)
        assert "medusa_config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match="check the name and the network") as caught:
        from_pretrained("some/heads")
    assert "\n" not in str(caught.value)


def damage(folder: Path) -> None:
    path = folder / "medusa_heads.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def remove(folder: Path) -> None:
    (folder / "medusa_heads.safetensors").unlink()


def set_key(key: str, value: object) -> Any:
    def change(folder: Path) -> None:
        path = folder / "medusa_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "is damaged"),
        (remove, "is missing"),
        (set_key("colour", "red"), "unknown key 'colour'"),
        (set_key("num_heads", 4), r"'3\.0\.linear\.weight' is missing"),
        (set_key("num_heads", 2), r"'2\.0\.linear\.bias' does not belong"),
        (set_key("hidden_size", HIDDEN + 1), r"has shape \(6, 6\) where \(7, 7\) is expected"),
        (set_key("draft_vocabulary_size", DRAFT), "'token_map' is missing"),
    ],
)
def test_files_that_disagree_end_in_one_line(
    make_heads: MakeHeads, tmp_path: Path, change: Any, message: str
) -> None:
    save_pretrained(make_heads(), tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def config_of(fingerprint: str | None) -> HeadsConfig:
    return HeadsConfig(
        num_heads=1,
        num_layers=1,
        hidden_size=HIDDEN,
        vocabulary_size=VOCABULARY,
        base_fingerprint=fingerprint,
    )


def test_another_fingerprint_warns_in_one_line() -> None:
    with pytest.warns(UserWarning, match="other weights") as caught:
        check_fingerprint(config_of("one"), "two")
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


@pytest.mark.parametrize(("mine", "theirs"), [("one", "one"), (None, "one"), ("one", None)])
def test_the_same_or_an_unknown_fingerprint_is_quiet(mine: str | None, theirs: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_fingerprint(config_of(mine), theirs)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, medusa_decoding.heads; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import medusa_decoding.heads

    with pytest.raises(AttributeError, match="Nothing"):
        _ = medusa_decoding.heads.Nothing
