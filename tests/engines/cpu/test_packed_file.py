from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medusa_decoding.engines.cpu import packed_file
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.engines.cpu.packed import Array, Weights, pack_model
from medusa_decoding.engines.cpu.packed_file import load_packed, packed_path, save_packed

from .random_models import alone, random_model, shape_of

MODEL = random_model(shape_of(architecture="qwen3"), biased=True)


@pytest.fixture
def arrays() -> dict[str, Array]:
    return pack_model(MODEL, "int8", 1)


@pytest.fixture
def path(arrays: dict[str, Array], tmp_path: Path) -> Path:
    save_packed(tmp_path / "kept" / "some.safetensors", arrays)
    return tmp_path / "kept" / "some.safetensors"


@pytest.mark.parametrize("weights", ["int8", "fp32"])
def test_arrays_come_back_bit_for_bit(tmp_path: Path, weights: Weights) -> None:
    arrays = pack_model(MODEL, weights, 1)
    save_packed(tmp_path / "kept.safetensors", arrays)
    found = load_packed(tmp_path / "kept.safetensors")
    assert found is not None and found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].ctypes.data % 64 == 0 and found[name].flags.c_contiguous
    assert [file.name for file in tmp_path.iterdir()] == ["kept.safetensors"]
    text = list(range(20))
    assert alone(CpuEngine(MODEL.shape, found, 1), text) == alone(CpuEngine(MODEL.shape, arrays, 1), text)


def test_a_file_per_model_and_kind_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {packed_path(Path("x"), key * 12, kind) for key in ("abc", "abd") for kind in ("int8", "fp32")}
    assert len(paths) == 4
    monkeypatch.setattr(packed_file._native, "LAYOUT", 99)
    assert packed_path(Path("x"), "abc" * 12, "int8") not in paths


def test_earlier_layouts_of_the_same_weights_go(arrays: dict[str, Array], tmp_path: Path) -> None:
    now = packed_path(tmp_path, "abc" * 12, "int8")
    earlier = now.with_name(now.name.replace(f"layout{packed_file._native.LAYOUT}", "layout0"))
    others = [packed_path(tmp_path, "abd" * 12, "int8"), packed_path(tmp_path, "abc" * 12, "fp32")]
    others = [path.with_name(path.name.replace("layout", "layout0")) for path in others]
    for path in (earlier, *others):
        path.touch()
    save_packed(now, arrays)
    assert sorted(tmp_path.iterdir()) == sorted([now, *others])


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:size]


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A file with another header."""

    def replace(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        fields = json.loads(content[8 : 8 + length])
        found = change(fields)
        text = json.dumps(fields if found is None else found).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    return replace


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": cut(0),
    "seven bytes": cut(7),
    "no header": cut(8),
    "half a header": cut(100),
    "one byte less": cut(-1),
    "garbage": lambda content: b"garbage " * 1000,
    "zeros": lambda content: bytes(len(content)),
    "header without end": lambda content: b"\xff" * 8 + content[8:],
    "header as long as the file": lambda content: len(content).to_bytes(8, "little") + content[8:],
    "no JSON": lambda content: content[:8] + b"#" + content[9:],
    "a list": header(lambda fields: [1, 2]),
    "a number": header(lambda fields: 7),
    "entries that are numbers": header(lambda fields: dict.fromkeys(fields, 3)),
    "another type": header(lambda fields: fields["norm"].update(dtype="F64")),
    "another size": header(lambda fields: fields["norm"].update(shape=[49])),
    "a size of text": header(lambda fields: fields["norm"].update(shape="ab")),
    "three offsets": header(lambda fields: fields["norm"].update(data_offsets=[0, 1, 2])),
    "offsets backwards": header(lambda fields: fields["norm"].update(data_offsets=[192, 0])),
    "offsets below the file": header(lambda fields: fields["norm"].update(data_offsets=[-192, 0])),
    "offsets behind the file": header(
        lambda fields: fields["norm"].update(data_offsets=[10**9, 10**9 + 192])
    ),
    "offsets of text": header(lambda fields: fields["norm"].update(data_offsets=["a", "b"])),
    "more than there is memory": header(
        lambda fields: fields["norm"].update(shape=[2**58], data_offsets=[0, 2**60])
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_as_good_as_none(path: Path, damage: str) -> None:
    assert load_packed(path) is not None
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert load_packed(path) is None


def test_no_file_or_a_folder_is_as_good_as_none(tmp_path: Path) -> None:
    assert load_packed(tmp_path / "absent") is None
    assert load_packed(tmp_path) is None


def test_another_models_arrays_are_refused(path: Path) -> None:
    found = load_packed(path)
    assert found is not None
    for fields in ({"hidden_size": 56}, {"layers": 3}, {"vocabulary_size": 64}, {"intermediate_size": 48}):
        with pytest.raises(ValueError, match="size of the model"):
            CpuEngine(shape_of(architecture="qwen3", **fields), found, 1)
    for name in ("layers.1.down.scale", "norm", "head.weights"):
        with pytest.raises((ValueError, KeyError)):
            CpuEngine(MODEL.shape, {key: array for key, array in found.items() if key != name}, 1)
    with pytest.raises(ValueError, match="head"):
        CpuEngine(MODEL.shape, {**found, "head.weights": found["head.weights"].astype(np.int16)}, 1)


def test_a_folder_that_cannot_be_written_costs_only_the_next_start(
    arrays: dict[str, Array], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.warns(UserWarning, match="not kept for the next start") as caught:
        save_packed(tmp_path / "file" / "kept.safetensors", arrays)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_a_full_disk_leaves_no_file(arrays: dict[str, Array], tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="not kept for the next start"):
            save_packed(tmp_path / "kept.safetensors", arrays)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
