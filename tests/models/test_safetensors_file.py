from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from medusa_decoding.errors import UserError
from medusa_decoding.models.safetensors_file import SafetensorsFile


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(kind: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_values_are_torchs(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    edges = torch.tensor([[0.0, -0.0, float("inf"), float("nan"), 1e-40]])
    weights = {"a": torch.randn(3, 5).to(dtype), "b.c": edges.to(dtype), "e": torch.empty(0, 2).to(dtype)}
    save_file(weights, tmp_path / "m.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "m.safetensors")
    assert file.entries.keys() == weights.keys()
    for name, weight in weights.items():
        found = file.tensor(name)
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(found, weight.float().numpy())
        np.testing.assert_array_equal(file.first(name, 4), weight.float().numpy().reshape(-1)[:4])


def test_data_that_is_not_aligned_is_copied(tmp_path: Path) -> None:
    header = {"a": entry("F32", [2], 0, 8)}
    values = np.array([1.5, -2.0], np.float32)
    for spaces in range(4):
        path = write(tmp_path / f"{spaces}", json.dumps(header).encode() + b" " * spaces, values.tobytes())
        found = SafetensorsFile(path).tensor("a")
        assert found.flags.aligned
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "Expecting property name"),
        (b"\xff", "codec can't decode"),
        (b"[" * 100_000, ""),
        (3, "no attribute 'pop'"),
        ({"a": 3}, "not subscriptable"),
        ({"a": {}}, "'dtype'"),
        ({"a": entry("Q4", [], 0, 4)}, "'a' is of the unknown type 'Q4'"),
        ({"a": entry("F32", [2, -1], 0, 4)}, "makes no sense"),
        ({"a": entry("F32", [True], 0, 4)}, "makes no sense"),
        ({"a": entry("F32", ["1"], 0, 4)}, "makes no sense"),
        ({"a": entry("F32", [1], 0.0, 4)}, "makes no sense"),
        ({"a": entry("F32", [1], 4, 0)}, "-4 bytes, which do not fit"),
        ({"a": entry("F32", [2], 0, 4)}, "4 bytes, which do not fit its shape"),
        ({"a": entry("F32", [2**62], 0, 2**64)}, "its tensors end at byte"),
        ({"a": entry("F32", [1], 4, 8)}, "'a' does not begin where"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, "'b' does not begin where"),
        ({}, "the file at"),
    ],
)
def test_headers_that_lie_are_one_line(header: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", header, bytes(4))
    with pytest.raises(UserError, match=rf"(?s)m.safetensors are damaged .*{message}.*download") as caught:
        SafetensorsFile(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_cut_or_absent_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(4, 4)}, path)
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        with pytest.raises(UserError, match=r"m.safetensors are damaged"):
            SafetensorsFile(path)
    path.write_bytes((2**63).to_bytes(8, "little"))
    with pytest.raises(UserError, match="inside its header"):
        SafetensorsFile(path)
    path.unlink()
    with pytest.raises(UserError, match="is missing; download"):
        SafetensorsFile(path)
    path.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        SafetensorsFile(path)


@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    try:
        SafetensorsFile(path)
    except UserError as error:
        assert "damaged" in str(error)
