"""The safetensors container: tensors of one file, every length checked before it is believed.

The layout: the header's length (8 bytes, little-endian), a JSON object that says where each tensor lies,
then the tensors' data without gaps. The library of that name reads it too, but has no bfloat16 in NumPy.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medusa_decoding.errors import UserError

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000
_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
"""Types whose tensors can be read, and what NumPy calls their memory."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the file, in bytes; `shape` has the outermost dimension first."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class SafetensorsFile:
    """One file, mapped into memory.

    Attributes:
        path: the file.
        entries: name -> where the tensor lies.

    Raises:
        UserError: the file cannot be read, is cut off or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = self._map()
        try:
            self.entries = _entries(self._bytes)
        # RecursionError: a header of nothing but brackets.
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise self.damaged(str(error)) from error

    def damaged(self, what: str) -> UserError:
        """The error of a file that cannot be what it says it is."""
        return UserError(f"the weights in {self.path} are damaged ({what}); download them again")

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor `name`, whose type is one of `FLOATS`, in float32; float32 is not copied, so it may be
        read-only.
        """
        return self.first(name, None).reshape(self.entries[name].shape)

    def first(self, name: str, count: int | None) -> npt.NDArray[np.float32]:
        """The first `count` values of the tensor `name` in float32, flat; all for None, or if there are
        fewer.
        """
        entry = self.entries[name]
        raw = np.frombuffer(self._bytes, np.uint8, entry.size, entry.offset).view(FLOATS[entry.dtype])[:count]
        if entry.dtype == "BF16":
            # Its bits are the upper half of the float32.
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if entry.dtype == "F32" and raw.flags.aligned:
            return raw
        return raw.astype(np.float32)

    def _map(self) -> memoryview:
        try:
            with self.path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise self.damaged("the file is empty") from error
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is missing; download the model again") from error
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}); check its permissions"
            ) from error


def _entries(data: memoryview) -> dict[str, Entry]:
    if len(data) < _LENGTH_BYTES:
        raise ValueError(f"it has {len(data)} bytes")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if length > _LONGEST_HEADER or start > len(data):
        raise ValueError(f"it ends after {len(data)} bytes, inside its header")
    header = json.loads(bytes(data[_LENGTH_BYTES:start]))
    header.pop("__metadata__", None)
    entries = {name: _entry(name, value, start) for name, value in header.items()}
    _check_places(entries, start, len(data))
    return entries


def _entry(name: str, value: Any, start: int) -> Entry:
    kind, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    if kind not in _SIZES:
        raise ValueError(f"tensor {name!r} is of the unknown type {kind!r}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or place that makes no sense")
    if end - begin != math.prod(shape) * _SIZES[kind]:
        raise ValueError(f"tensor {name!r} has {end - begin} bytes, which do not fit its shape {shape}")
    return Entry(kind, tuple(shape), start + begin, end - begin)


def _check_places(entries: dict[str, Entry], start: int, end: int) -> None:
    """Tensors lie one behind the other, and the last one ends where the file ends."""
    position = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset != position:
            raise ValueError(f"tensor {name!r} does not begin where the one before it ends")
        position += entry.size
    if position != end:
        raise ValueError(f"its tensors end at byte {position}, the file at {end}")
