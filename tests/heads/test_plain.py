"""Heads read as arrays are the heads that torch reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medusa_decoding.errors import UserError
from medusa_decoding.heads import HeadsConfig, from_pretrained, save_pretrained
from medusa_decoding.heads.plain import WEIGHTS_FILE, check_fit, read_arrays
from medusa_decoding.heads.state import state_of

from .conftest import DRAFT, HIDDEN, VOCABULARY, MakeHeads

VARIANTS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "condition": "root", "draft_vocabulary_size": DRAFT, "calibration": [1.0, 1.25, 1.5]},
    {"projection": "own", "base_model": "some/model", "base_fingerprint": "abc"},
    {"num_layers": 0},
]


@pytest.mark.parametrize("fields", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_arrays_are_the_tensors_that_torch_reads(
    make_heads: MakeHeads, tmp_path: Path, fields: dict[str, Any], dtype: str
) -> None:
    save_pretrained(make_heads(**fields), tmp_path, dtype=dtype)
    config, arrays = read_arrays(tmp_path)
    heads = from_pretrained(tmp_path)
    assert config == heads.config
    expected = state_of(heads)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == (np.int64 if name == "token_map" else np.float32)
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, expected[name].numpy())


@pytest.mark.parametrize(("dtype", "needs_torch"), [("float16", False), ("bfloat16", True)])
def test_torch_is_imported_only_where_numpy_cannot_read(
    make_heads: MakeHeads, tmp_path: Path, dtype: str, needs_torch: bool
) -> None:
    save_pretrained(make_heads(draft_vocabulary_size=DRAFT), tmp_path, dtype=dtype)
    code = (
        "import sys; from medusa_decoding.heads.plain import read_arrays;"
        f" read_arrays({str(tmp_path)!r}); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(needs_torch)


def cut(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-7])


def remove(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


def change_config(**fields: object) -> Any:
    def change(folder: Path) -> None:
        path = folder / "medusa_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def change_tensor(name: str, tensor: torch.Tensor) -> Any:
    def change(folder: Path) -> None:
        save_file(load_file(folder / WEIGHTS_FILE) | {name: tensor}, folder / WEIGHTS_FILE)

    return change


@pytest.mark.parametrize(
    "change",
    [
        cut,
        remove,
        change_config(colour="red"),
        change_config(num_heads=4),
        change_config(num_heads=2),
        change_config(hidden_size=HIDDEN + 1),
        change_tensor("more", torch.zeros(3)),
        change_tensor("0.0.linear.weight", torch.zeros(HIDDEN, HIDDEN + 1)),
        pytest.param(
            change_tensor("0.0.linear.weight", torch.zeros(HIDDEN, HIDDEN, dtype=torch.int64)),
            marks=pytest.mark.xfail(strict=True, reason="integers are taken for weights"),
        ),
        change_tensor("token_map", torch.zeros(DRAFT, dtype=torch.int64)),
        change_tensor("token_map", torch.arange(DRAFT) + VOCABULARY - 1),
        change_tensor("token_map", torch.arange(DRAFT) - 1),
        change_tensor("token_map", torch.arange(DRAFT).float()),
    ],
)
def test_faults_end_in_the_line_that_torch_would_say(
    make_heads: MakeHeads, tmp_path: Path, change: Any
) -> None:
    save_pretrained(make_heads(draft_vocabulary_size=DRAFT), tmp_path)
    change(tmp_path)
    with pytest.raises(UserError) as expected:
        from_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        read_arrays(tmp_path)
    assert str(caught.value) == str(expected.value)
    assert "\n" not in str(caught.value)


def test_a_place_without_heads_names_the_files_looked_for(tmp_path: Path) -> None:
    for location in (tmp_path, tmp_path / "absent", "absent"):
        with pytest.raises(UserError, match=r"medusa_config\.json") as caught:
            read_arrays(location)
        assert "\n" not in str(caught.value)


def config_of(**fields: Any) -> HeadsConfig:
    values = {"num_heads": 1, "num_layers": 1, "hidden_size": HIDDEN, "vocabulary_size": VOCABULARY, **fields}
    return HeadsConfig(**values)


def test_heads_fit_models_of_their_sizes() -> None:
    check_fit(config_of(), HIDDEN, VOCABULARY)
    check_fit(config_of(vocabulary_size=None), HIDDEN, 999)


@pytest.mark.parametrize("sizes", [(HIDDEN + 1, VOCABULARY), (HIDDEN, VOCABULARY + 1)])
def test_heads_for_other_sizes_are_refused_in_one_line(sizes: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"\(23, 6\).*some/model.*medusa train") as caught:
        check_fit(config_of(base_model="some/model"), *sizes)
    assert f"({sizes[1]}, {sizes[0]})" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"\(any, 6\)"):
        check_fit(config_of(vocabulary_size=None), HIDDEN + 1, 5)
