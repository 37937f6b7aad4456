"""Arrays in one block of memory."""

from __future__ import annotations

import numpy as np
import pytest

from medusa_decoding.engines.cpu.memory import ALIGNMENT, Block, in_one_block


@pytest.mark.parametrize("size", [1, 1000, 3 << 20])
def test_pieces_stand_on_whole_cache_lines_one_behind_the_other(size: int) -> None:
    sizes = [size, 7, ALIGNMENT]
    block = Block(sizes)
    places = [block.take(one).ctypes.data for one in sizes]
    assert all(place % ALIGNMENT == 0 for place in places)
    assert places[1] - places[0] == -(-size // ALIGNMENT) * ALIGNMENT
    assert places[2] - places[1] == ALIGNMENT


def test_a_large_block_begins_on_a_huge_page() -> None:
    assert Block([5 << 20]).take(5 << 20).ctypes.data % (2 << 20) == 0


def test_more_than_the_block_has_is_refused() -> None:
    block = Block([10])
    block.take(10)
    with pytest.raises(AssertionError):
        block.take(5 << 20)


def test_copies_are_equal_and_apart() -> None:
    arrays = {"a": np.arange(12, dtype=np.int8).reshape(3, 4), "b": np.array([0.5, -1.0], np.float32)}
    copies = in_one_block(arrays)
    for name, array in arrays.items():
        assert copies[name].dtype == array.dtype
        np.testing.assert_array_equal(copies[name], array)
        copies[name][...] = 0
        assert array.any()
