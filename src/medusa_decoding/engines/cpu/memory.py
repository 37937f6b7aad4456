"""One block of memory for many arrays, which the system can give huge pages.

What a pass reads from end to end would otherwise need a page entry for each 4 kB, and push out those of the
next pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
_HUGE = 1 << 21


class Block:
    """Room for arrays of these sizes in bytes, each on whole cache lines, taken one after the other."""

    def __init__(self, sizes: Iterable[int]) -> None:
        room = sum(_padded(size, ALIGNMENT) for size in sizes)
        unit = _HUGE if room >= _HUGE else ALIGNMENT
        # NumPy asks the system for huge pages in arrays of 4 MB or more, which a mapped file would not get.
        # One unit is for the alignment, one more brings every block of huge pages to that size.
        memory = np.empty(_padded(room, unit) + 2 * unit, np.uint8)
        self._memory, self._place = memory, -memory.ctypes.data % unit

    def take(self, size: int) -> NDArray[np.uint8]:
        """The next `size` bytes, not filled."""
        piece = self._memory[self._place : self._place + size]
        assert len(piece) == size
        self._place += _padded(size, ALIGNMENT)
        return piece


def in_one_block(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Copies of the arrays in one block."""
    block = Block(array.nbytes for array in arrays.values())
    copies: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        copies[name] = block.take(array.nbytes).view(array.dtype).reshape(array.shape)
        copies[name][...] = array
    return copies


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
