from __future__ import annotations

import pytest

from medusa_decoding.serving.memory import KvMemory
from tests.decoding.toy import ToyEngine, random_table


class Paged(ToyEngine):
    def kv_bytes(self, lengths):  # type: ignore[no-untyped-def]
        return sum(-(-length // 64) for length in lengths) * 6400


def test_room_is_counted_by_the_engine() -> None:
    memory = KvMemory(Paged(random_table(2, seed=0)), 64_000e-9)
    assert memory.fits([640]) and memory.fits([64] * 10) and not memory.fits([65] * 6)
    assert memory.longest(10_000) == 640
    assert memory.longest(100) == 100
    assert KvMemory(Paged(random_table(2, seed=0)), 1e-6).longest(100) == 0


def test_half_of_what_is_free_is_the_default() -> None:
    memory = KvMemory(Paged(random_table(2, seed=0)))
    assert 1e6 < memory.limit < 1e14
    assert memory.longest(4096) == 4096


def test_what_engines_say_is_what_they_take() -> None:
    pytest.importorskip("medusa_decoding._native")
    from tests.engines.cpu.random_models import random_model, shape_of

    engine = random_model(shape_of()).engine("fp32")
    import numpy as np

    from medusa_decoding.decoding.protocols import as_rows

    for length in (1, 64, 65, 130):
        handle, depths = engine.open(), np.arange(length)
        before = engine.model.cache_bytes()
        engine.forward(as_rows(handle, depths % 7, 0, depths - 1, depths, depths < 0))
        engine.commit(depths)
        assert engine.model.cache_bytes() - before == engine.kv_bytes([length])
