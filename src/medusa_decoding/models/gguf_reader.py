"""The GGUF container: metadata and tensors of one file, every length checked before it is believed.

The layout is that of the GGUF specification, versions 2 and 3, little-endian: a magic number, counts, key-value
pairs, tensor descriptions, then the tensors' data at aligned offsets. The `gguf` package reads the same files, but
keeps each element of each list as an array of its own, which takes seconds for a vocabulary; from it come the
names and sizes of the quantisation types and the dequantisation.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize

from medusa_decoding.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]

_MAGIC = b"GGUF"
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LONGEST_SHAPE = 4
_WAY_OUT = "download it again"


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file; `shape` has the outermost dimension first, as in NumPy."""

    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    offset: int
    size: int


class GgufFile:
    """One GGUF file, mapped into memory.

    Attributes:
        path: the file.
        metadata: key -> int, float, bool, str or list of these.
        tensors: name -> where it lies.

    Raises:
        UserError: the file is not GGUF, is of another version, is cut off or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._bytes = self._map()
        self._position = 0
        try:
            self._read_header()
        except (struct.error, ValueError, OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise self.damaged(str(error)) from error

    def string(self, key: str, default: str | None = None) -> str:
        """The text under `key`; without a default, a missing key or another type is an error."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise self.damaged(f"no text under '{key}'")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """The integer under `key`; without a default, a missing key or another type is an error."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.damaged(f"no integer under '{key}'")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The finite number under `key`; without a default, a missing key or another type is an error."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.damaged(f"no number under '{key}'")
        return float(value)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor `name`, outermost dimension first."""
        if name not in self.tensors:
            raise self.damaged(f"tensor '{name}' is missing")
        return self.tensors[name].shape

    def tensor(self, name: str) -> Array:
        """The tensor `name`, dequantised to float32, outermost dimension first."""
        self.shape(name)
        info = self.tensors[name]
        raw = np.frombuffer(self._bytes, np.uint8, info.size, info.offset)
        if info.type == gguf.GGMLQuantizationType.F32:
            return raw.view("<f4").reshape(info.shape).copy()
        if info.type == gguf.GGMLQuantizationType.F16:
            return raw.view("<f2").reshape(info.shape).astype(np.float32)
        try:
            values: Array = dequantize(raw.reshape(*info.shape[:-1], -1), info.type)
        except NotImplementedError as error:
            raise UserError(
                f"{self.path.name}: tensor '{name}' is of type {info.type.name}, which cannot be dequantised here; "
                "use a file of another quantisation (Q4_K_M and Q8_0 work)"
            ) from error
        return values.reshape(info.shape)

    def damaged(self, what: str) -> UserError:
        """The error of a file that cannot be what it says it is."""
        return UserError(f"{self.path} is a damaged GGUF file ({what}); {_WAY_OUT}")

    def _map(self) -> memoryview:
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_size == 0:
                    raise UserError(f"{self.path} is empty; {_WAY_OUT}")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}); check the path and its permissions"
            ) from error

    def _take(self, count: int) -> memoryview:
        end = self._position + count
        if end > len(self._bytes):
            raise ValueError(f"it ends after {len(self._bytes)} bytes, in the middle of its header")
        piece = self._bytes[self._position : end]
        self._position = end
        return piece

    def _scalar(self, kind: int) -> Any:
        if kind not in _SCALARS:
            raise ValueError(f"unknown value type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        return np.frombuffer(self._take(dtype.itemsize), dtype)[0].item()

    def _count(self) -> int:
        """A number of things that take at least a byte each: never more than there are bytes left."""
        count = int(struct.unpack("<Q", self._take(8))[0])
        if count > len(self._bytes) - self._position:
            raise ValueError(f"it announces {count} entries, more than it has bytes")
        return count

    def _text(self) -> str:
        return bytes(self._take(self._count())).decode("utf-8", errors="surrogateescape")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._list()
        return self._scalar(kind)

    def _list(self) -> list[Any]:
        kind = self._scalar(4)
        count = self._count()
        if kind == _STRING:
            return [self._text() for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"unknown list type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        values: list[Any] = np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()
        return values

    def _read_header(self) -> None:
        if bytes(self._bytes[:4]) != _MAGIC:
            raise UserError(f"{self.path} is not a GGUF file; give a .gguf file, a model folder or a Hub id")
        self._position = 4
        version = self._scalar(4)
        if version not in (2, 3):
            raise UserError(
                f"{self.path} is GGUF version {version}; versions 2 and 3 (little-endian) are read"
            )
        tensor_count, pair_count = self._count(), self._count()
        for _ in range(pair_count):
            key = self._text()
            self.metadata[key] = self._value(self._scalar(4))
        self._read_tensor_infos(tensor_count)

    def _read_tensor_infos(self, count: int) -> None:
        described = [self._tensor_info() for _ in range(count)]
        alignment = self.integer("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if alignment < 1:
            raise ValueError(f"alignment {alignment}")
        start = -(-self._position // alignment) * alignment
        for info in described:
            placed = TensorInfo(info.name, info.shape, info.type, start + info.offset, info.size)
            if placed.offset + placed.size > len(self._bytes):
                raise ValueError(f"tensor '{info.name}' ends beyond the end of the file")
            self.tensors[info.name] = placed

    def _tensor_info(self) -> TensorInfo:
        name = self._text()
        rank = self._scalar(4)
        if not 1 <= rank <= _LONGEST_SHAPE:
            raise ValueError(f"tensor '{name}' has {rank} dimensions")
        shape = tuple(reversed(struct.unpack(f"<{rank}Q", self._take(8 * rank))))
        kind, offset = self._scalar(4), self._scalar(10)
        type_ = gguf.GGMLQuantizationType(kind)
        block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
        if 0 in shape or shape[-1] % block:
            raise ValueError(f"tensor '{name}' of type {type_.name} has shape {list(shape)}")
        return TensorInfo(name, shape, type_, offset, math.prod(shape) // block * block_bytes)
