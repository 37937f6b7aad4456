"""Packed weights on disk, so that the next start reads them instead of packing them.

One safetensors file per model, weights and layout. It is a cache: whatever is wrong with it, the weights are
packed again.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from medusa_decoding import _native
from medusa_decoding.engines.cpu.memory import Block
from medusa_decoding.engines.cpu.packed import Array
from medusa_decoding.files import atomic_write

_DTYPES: dict[str, Any] = {"U8": np.uint8, "I8": np.int8, "F32": np.float32}
_LONGEST_HEADER = 1 << 26


def packed_path(folder: Path, key: str, weights: str) -> Path:
    """Where the packed weights of the checkpoint `key` are kept."""
    return folder / f"{key[:24]}-{weights}-layout{_native.LAYOUT}.safetensors"


def save_packed(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays; a full disk or a folder that cannot be written costs only the next start.

    What an earlier version of this package kept of the same model, in a layout that is read no more, goes.
    """
    try:
        with atomic_write(path) as temporary:
            save_file(dict(arrays), temporary)
        for other in path.parent.glob(f"{path.name.rpartition('-layout')[0]}-layout*.safetensors"):
            if other != path:
                other.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"the packed weights are not kept for the next start: {path.parent}: "
            f"{getattr(error, 'strerror', None) or error}",
            stacklevel=2,
        )


def load_packed(path: Path) -> dict[str, Array] | None:
    """The arrays of a file, on whole cache lines of one block of memory; None where there is no such file or
    it is damaged.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(file: BufferedReader, size: int) -> dict[str, Array]:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_LONGEST_HEADER, size):
        raise ValueError("no header")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    block = Block(end - begin for begin, end in _offsets(header, size))
    arrays: dict[str, Array] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        if end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError("sizes that do not fit")
        piece = block.take(end - begin)
        file.seek(8 + length + begin)
        if file.readinto(piece.data) != end - begin:
            raise ValueError("cut off")
        arrays[name] = piece.view(dtype).reshape(entry["shape"])
    return arrays


def _offsets(header: Mapping[str, Any], size: int) -> list[tuple[int, int]]:
    offsets = [tuple(entry["data_offsets"]) for entry in header.values()]
    # Checked before memory is asked for: a damaged header may name more bytes than any machine has.
    if not all(len(pair) == 2 and 0 <= pair[0] <= pair[1] <= size for pair in offsets):
        raise ValueError("offsets that make no sense")
    return offsets
