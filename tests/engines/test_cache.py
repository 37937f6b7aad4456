from __future__ import annotations

import numpy as np
import pytest
import torch

from medusa_decoding.decoding import Tree
from medusa_decoding.engines import TorchEngine, cache
from tests.engines.passes import Passes, chain, random_tree
from tests.engines.tiny_models import model_of

NAMES = ["llama", "gemma3"]


@pytest.fixture(params=NAMES)
def passes(request: pytest.FixtureRequest) -> Passes:
    model = model_of(request.param)
    return Passes(model, TorchEngine(model))


def test_accepted_rows_stand_next_to_each_other(passes: Passes) -> None:
    """The worked example: 0 - 1 - 4 is kept, 2 and 3 are forgotten."""
    handle = passes.open()
    passes.feed(handle, [7, 8])
    tree = Tree(np.array([11, 21, 22, 31, 32]), np.array([-1, 0, 0, 1, 1]), np.ones(5))
    passes.verify({handle: tree})
    before = [keys.clone() for keys, _ in passes.kept(handle)]
    passes.commit({handle: tree}, {handle: 4})
    assert passes.texts[handle] == [7, 8, 11, 21, 32]
    passes.check_cache(handle)
    for old, (keys, _) in zip(before, passes.kept(handle), strict=True):
        assert torch.equal(keys[:, :2], old)


def test_the_cache_after_any_step_is_a_fresh_prefill(passes: Passes) -> None:
    random = np.random.default_rng(1)
    handles = [passes.open() for _ in range(3)]
    for handle, size in zip(handles, (1, 4, 9), strict=True):
        passes.feed(handle, random.integers(0, 37, size).tolist())
    for _ in range(5):
        trees = {handle: random_tree(random, int(random.integers(1, 9))) for handle in handles}
        passes.engine.forward(passes.rows(trees))
        passes.commit(trees, {handle: int(random.integers(len(tree))) for handle, tree in trees.items()})
        for handle in handles:
            passes.check_cache(handle)


def test_the_order_of_sequences_may_change(passes: Passes) -> None:
    """Rows of later slots first, and slots that do not follow each other: the batch is copied together."""
    random = np.random.default_rng(2)
    first, second, third = (passes.open() for _ in range(3))
    for handle in (first, second, third):
        passes.feed(handle, random.integers(0, 37, 4).tolist())
    for order in ((third, first), (second, first), (first, third), (third, second, first)):
        trees = {handle: random_tree(random, 5) for handle in order}
        passes.verify(trees)
        passes.commit(trees, dict.fromkeys(order, 4))
    for handle in (first, second, third):
        passes.check_cache(handle)


def test_nothing_is_kept_of_sequences_that_commit_nothing(passes: Passes) -> None:
    first, second = passes.open(), passes.open()
    trees = {first: chain([1, 2, 3]), second: chain([4, 5])}
    passes.verify(trees)
    passes.commit(trees, {second: 1})
    assert passes.texts == {first: [], second: [4, 5]}
    passes.verify({first: chain([6, 7]), second: chain([8])})
    passes.commit({first: chain([6, 7]), second: chain([8])}, {first: 1, second: 0})
    passes.check_cache(first)
    passes.check_cache(second)


def test_a_pass_without_commit_leaves_no_trace(passes: Passes) -> None:
    handle = passes.open()
    passes.feed(handle, [1, 2, 3])
    passes.engine.forward(passes.rows({handle: chain([9, 9, 9, 9])}))
    passes.verify({handle: chain([4, 5])})


def test_truncate_forgets_the_end(passes: Passes) -> None:
    handle, other = passes.open(), passes.open()
    passes.feed(handle, list(range(1, 13)))
    passes.feed(other, [5, 4, 3])
    for length in (12, 7, 7, 2, 0):
        passes.engine.truncate(handle, length)
        del passes.texts[handle][length:]
        passes.verify({handle: chain([30, 31]), other: chain([29])})
    passes.feed(handle, [1, 2, 3])
    passes.check_cache(handle)
    passes.check_cache(other)


@pytest.mark.parametrize("length", [-1, 4])
def test_truncate_cannot_lengthen(passes: Passes, length: int) -> None:
    handle = passes.open()
    passes.feed(handle, [1, 2, 3])
    with pytest.raises(AssertionError):
        passes.engine.truncate(handle, length)


def test_a_closed_slot_is_used_again(passes: Passes) -> None:
    first, second, third = (passes.open() for _ in range(3))
    for handle in (first, second, third):
        passes.feed(handle, [handle] * 9)
    passes.engine.close(second)
    again = passes.open()
    assert again not in (first, second, third)
    assert passes.engine._slots[again].index == 1
    passes.feed(again, [1, 2])
    passes.verify({third: chain([3, 4]), again: chain([5])})
    for handle in (first, third, again):
        passes.check_cache(handle)
    assert passes.engine._cache.layers[0].keys.shape[0] == 3


def test_capacity_grows_with_the_longest_sequence(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALLEST_CAPACITY", 4)
    handle, other = passes.open(), passes.open()
    passes.feed(handle, [1, 2, 3])
    capacities = []
    for step in range(6):
        capacities.append(passes.engine._cache.layers[0].keys.shape[2])
        passes.verify({handle: chain([step, step + 1, step + 2]), other: chain([step])})
        passes.commit(
            {handle: chain([step, step + 1, step + 2]), other: chain([step])}, {handle: 2, other: 0}
        )
    passes.check_cache(handle)
    passes.check_cache(other)
    assert capacities == [4, 8, 16, 16, 16, 32]


def test_memory_begins_small_and_is_not_the_models_maximum(passes: Passes) -> None:
    handle = passes.open()
    assert not any(layer.is_initialized for layer in passes.engine._cache.layers)
    passes.feed(handle, [1])
    assert {layer.keys.shape[2] for layer in passes.engine._cache.layers} == {cache.SMALLEST_CAPACITY}
