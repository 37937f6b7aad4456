"""A row's logits and hidden state have the same bits however rows are grouped, and whoever computes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.engines.cpu.packed import Weights

from .random_models import (
    CONTEXT,
    ISAS,
    RandomModel,
    Texts,
    alone,
    chain,
    kinds,
    models,
    random_model,
    random_tokens,
    random_tree,
    shape_of,
    tree_alone,
)

engines = {"weights": kinds, "threads": st.integers(1, 3), "isa": st.sampled_from(ISAS)}
seeds = st.integers(0, 2**31)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(model=models, seed=seeds, length=st.integers(1, 150), piece=st.integers(1, 150), **engines)
def test_a_text_in_pieces_of_any_size(
    model: RandomModel, seed: int, length: int, piece: int, weights: Weights, threads: int, isa: str
) -> None:
    text = random_tokens(np.random.default_rng(seed), length)
    expected = alone(model.engine(weights, 1, "portable"), text)
    texts = Texts(model.engine(weights, threads, isa))
    handle, found = texts.open(), list[bytes]()
    for start in range(0, length, piece):
        trees = {handle: chain(text[start : start + piece])}
        found += texts.forward(trees)
        texts.commit(trees, {handle: len(trees[handle]) - 1})
    assert found == expected


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    model=models,
    seed=seeds,
    prefixes=st.lists(st.integers(0, 140), min_size=1, max_size=3),
    nodes=st.integers(1, 30),
    **engines,
)
def test_trees_beside_those_of_other_sequences(
    model: RandomModel,
    seed: int,
    prefixes: list[int],
    nodes: int,
    weights: Weights,
    threads: int,
    isa: str,
) -> None:
    random, plain = np.random.default_rng(seed), model.engine(weights, 1, "portable")
    texts = Texts(model.engine(weights, threads, isa))
    trees = {}
    for length in prefixes:
        handle = texts.open()
        texts.feed(handle, random_tokens(random, length), int(random.integers(1, 150)))
        trees[handle] = random_tree(random, int(random.integers(1, nodes + 1)))
    found = texts.forward(trees)
    expected = [tree_alone(plain, texts.tokens[handle], tree) for handle, tree in trees.items()]
    assert found == [row for rows in expected for row in rows]
    # Once a path of each is kept, the next rows are those of a fresh prefill.
    texts.commit(trees, {handle: int(random.integers(len(tree))) for handle, tree in trees.items()})
    for handle in trees:
        assert texts.next(handle) == alone(plain, [*texts.tokens[handle], 3])[-1]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(model=models, seed=seeds, **engines)
def test_sequences_that_fork_shrink_and_grow(
    model: RandomModel, seed: int, weights: Weights, threads: int, isa: str
) -> None:
    random, plain = np.random.default_rng(seed), model.engine(weights, 1, "portable")
    texts = Texts(model.engine(weights, threads, isa))
    texts.open()
    for _ in range(12):
        handle = int(random.choice(list(texts.tokens)))
        length = len(texts.tokens[handle])
        action = random.choice(["feed", "fork", "truncate", "tree", "close"])
        if action == "feed":
            texts.feed(handle, random_tokens(random, int(random.integers(1, max(2, 180 - length)))), 50)
        elif action == "fork":
            texts.fork(handle, int(random.integers(0, length + 1)))
        elif action == "truncate":
            texts.truncate(handle, int(random.integers(0, length + 1)))
        elif action == "close" and len(texts.tokens) > 1:
            texts.engine.close(handle)
            del texts.tokens[handle]
        elif length < 180:
            trees = {handle: random_tree(random, 6)}
            texts.forward(trees)
            texts.commit(trees, {handle: int(random.integers(6))})
    rows = texts.forward({handle: chain([3]) for handle in texts.tokens})
    assert rows == [alone(plain, [*tokens, 3])[-1] for tokens in texts.tokens.values()]


@pytest.mark.parametrize("cut", [0, 10, 64, 100, 129])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128, 130])
def test_a_fork_shares_what_was_and_nothing_that_comes(length: int, cut: int) -> None:
    model = random_model(shape_of())
    texts, plain = Texts(model.engine("int8")), model.engine("int8")
    random = np.random.default_rng(length)
    parent = texts.open()
    texts.feed(parent, random_tokens(random, 130))
    child = texts.fork(parent, length)
    before = texts.next(parent)
    assert texts.next(child) == alone(plain, [*texts.tokens[child], 3])[-1]
    # Each writes behind, and then over, what the other one holds.
    texts.feed(child, random_tokens(random, 70))
    assert texts.next(parent) == before
    texts.truncate(parent, cut)
    texts.feed(parent, random_tokens(random, 70))
    grandchild = texts.fork(child, length)
    texts.truncate(child, min(cut, length))
    texts.feed(child, random_tokens(random, 70))
    for handle in (parent, child, grandchild):
        assert texts.next(handle) == alone(plain, [*texts.tokens[handle], 3])[-1]
    texts.engine.close(parent)
    assert texts.next(child) == alone(plain, [*texts.tokens[child], 3])[-1]


def test_forks_share_their_memory() -> None:
    texts = Texts(random_model(shape_of()).engine("int8"))
    parent = texts.open()
    texts.feed(parent, [1] * 128)
    held = texts.engine.model.cache_bytes()
    children = [texts.fork(parent, 128) for _ in range(5)]
    assert texts.engine.model.cache_bytes() == held > 0
    for handle in [parent, *children]:
        texts.engine.close(handle)
    assert texts.engine.model.cache_bytes() == 0


def test_a_truncated_sequence_forgets() -> None:
    model = random_model(shape_of(window=20))
    texts, plain = Texts(model.engine("fp32")), model.engine("fp32")
    handle, text = texts.open(), random_tokens(np.random.default_rng(0), CONTEXT - 1)
    texts.feed(handle, text)
    for length in (200, 129, 128, 65, 64, 1, 0):
        texts.truncate(handle, length)
        assert texts.next(handle) == alone(plain, [*text[:length], 3])[-1]


def test_the_bits_say_what_was_read() -> None:
    """That the tests above compare something: other tokens, and only those that are seen, change the bits."""
    engine = random_model(shape_of(layers=1, window=4)).engine("int8")
    text = random_tokens(np.random.default_rng(0), 9)
    other = [text[0] ^ 1, *text[1:]]
    assert [a == b for a, b in zip(alone(engine, text), alone(engine, other), strict=True)] == [
        *[False] * 4,
        *[True] * 5,
    ]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_ties_go_to_the_lowest_id(threads: int, isa: str) -> None:
    """Also where the equals stand in the shares of different threads."""
    model = random_model(shape_of(vocabulary_size=100))
    model.tensors["lm_head.weight"][:] = np.tile(model.tensors["lm_head.weight"][:20], (5, 1))
    texts = Texts(model.engine("int8", threads, isa))
    verified = texts.engine.forward(texts.rows({texts.open(): chain(range(37))}))
    best = verified.argmax(np.arange(37))
    assert best.tolist() == [int(np.argmax(verified.logits(row))) for row in range(37)]
    assert best.max() < 20
