"""The GGUF container: metadata and tensors of one file, every length checked before it is believed.

The layout is that of the GGUF specification, versions 2 and 3, little-endian: a magic number, counts,
key-value pairs, tensor descriptions, then the tensors' data at aligned offsets. The `gguf` package reads the
same files, but keeps each element of each list as an array of its own, which takes seconds for a vocabulary;
from it come the names and sizes of the quantisation types and the dequantisation.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize

from medusa_decoding.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]

_MAGIC = b"GGUF"
# fmt: off
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}
# fmt: on
_UINT32, _FLOAT32, _STRING, _ARRAY, _UINT64 = 4, 6, 8, 9, 10
_HIGHEST_RANK = 4
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file, in bytes; `shape` has the outermost dimension first, as in NumPy."""

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
            self._read()
        except (ValueError, OverflowError, MemoryError) as error:
            raise self.damaged(str(error)) from error

    def damaged(self, what: str) -> UserError:
        """The error of a file that cannot be what it says it is."""
        return UserError(f"{self.path} is a damaged GGUF file ({what}); download it again")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor `name`, outermost dimension first."""
        if name not in self.tensors:
            raise self.damaged(f"tensor {name!r} is missing")
        return self.tensors[name].shape

    def tensor(self, name: str) -> Array:
        """The tensor `name`, dequantised to float32, outermost dimension first."""
        shape = self.shape(name)
        return self.rows(name, math.prod(shape[:-1])).reshape(shape)

    def rows(self, name: str, count: int) -> Array:
        """The first `count` rows of the tensor `name`, dequantised to float32; rows of its last dimension,
        whatever the others are.
        """
        width = self.shape(name)[-1]
        info = self.tensors[name]
        block, block_bytes = gguf.GGML_QUANT_SIZES[info.type]
        raw = np.frombuffer(self._bytes, np.uint8, count * (width // block) * block_bytes, info.offset)
        try:
            values: Array = dequantize(raw.reshape(count, -1), info.type)
        except NotImplementedError as error:
            raise UserError(
                f"{self.path.name}: tensor {name!r} is of type {info.type.name}, which cannot be "
                "dequantised here; use another quantisation (Q4_K_M and Q8_0 work)"
            ) from error
        return values.reshape(count, width)

    def _map(self) -> memoryview:
        try:
            with self.path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise UserError(f"{self.path} is empty; download it again") from error
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}); check its permissions"
            ) from error

    def _read(self) -> None:
        if bytes(self._bytes[:4]) != _MAGIC:
            raise UserError(f"{self.path} is not a GGUF file; give a .gguf file, a model folder or a Hub id")
        self._position = 4
        version = self._scalar(_UINT32)
        if version not in (2, 3):
            raise UserError(
                f"{self.path} is GGUF of version {version}; versions 2 and 3 (little-endian) are read. "
                "Convert the model anew"
            )
        tensor_count, pair_count = self._count(), self._count()
        for _ in range(pair_count):
            key = self._text()
            self.metadata[key] = self._value(self._scalar(_UINT32))
        self._place([self._tensor_info() for _ in range(tensor_count)])

    def _place(self, infos: list[TensorInfo]) -> None:
        """Offsets count from the first aligned byte after the header."""
        alignment = self.metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"alignment {alignment}")
        start = -(-self._position // alignment) * alignment
        for info in infos:
            if start + info.offset + info.size > len(self._bytes):
                raise ValueError(f"tensor {info.name!r} ends beyond the end of the file")
            if info.name in self.tensors:
                raise ValueError(f"tensor {info.name!r} comes twice")
            self.tensors[info.name] = replace(info, offset=start + info.offset)

    def _tensor_info(self) -> TensorInfo:
        name = self._text()
        rank = self._scalar(_UINT32)
        if not 1 <= rank <= _HIGHEST_RANK:
            raise ValueError(f"tensor {name!r} has {rank} dimensions")
        shape = tuple(reversed(struct.unpack(f"<{rank}Q", self._take(8 * rank))))
        kind = gguf.GGMLQuantizationType(self._scalar(_UINT32))
        offset = self._scalar(_UINT64)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[-1] % block:
            raise ValueError(f"tensor {name!r} of type {kind.name} has shape {list(shape)}")
        return TensorInfo(name, shape, kind, offset, math.prod(shape) // block * block_bytes)

    def _take(self, count: int) -> memoryview:
        end = self._position + count
        if end > len(self._bytes):
            raise ValueError(f"it ends after {len(self._bytes)} bytes, inside its header")
        piece = self._bytes[self._position : end]
        self._position = end
        return piece

    def _count(self) -> int:
        """A number of things that take at least a byte each, so never more than there are bytes left."""
        count = int(struct.unpack("<Q", self._take(8))[0])
        if count > len(self._bytes) - self._position:
            raise ValueError(f"it announces {count} entries, more than it has bytes")
        return count

    def _text(self) -> str:
        return bytes(self._take(self._count())).decode("utf-8")

    def _texts(self, count: int) -> list[str]:
        """As many times `_text`; vocabularies are long, so a sound one is read without a call for each."""
        texts: list[str] = []
        data, length_at = self._bytes, _LENGTH.unpack_from
        for _ in range(count):
            start = self._position + _LENGTH.size
            end = start + length_at(data, self._position)[0] if start <= len(data) else start
            if end <= len(data):
                texts.append(str(data[start:end], "utf-8"))
                self._position = end
            else:
                texts.append(self._text())  # which says what is wrong
        return texts

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        return self._list() if kind == _ARRAY else self._scalar(kind)

    def _scalar(self, kind: int) -> Any:
        return self._numbers(kind, 1)[0]

    def _list(self) -> list[Any]:
        kind = self._scalar(_UINT32)
        count = self._count()
        if kind == _STRING:
            return self._texts(count)
        return self._numbers(kind, count)

    def _numbers(self, kind: int, count: int) -> list[Any]:
        if kind not in _SCALARS:
            raise ValueError(f"unknown value type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self._take(count * dtype.itemsize), dtype)
        # The shortest decimal that names the float32: 1e-05, not 9.999999747378752e-06, as in the original
        # config.
        numbers: list[Any] = values.tolist() if kind != _FLOAT32 else [float(str(value)) for value in values]
        return numbers
