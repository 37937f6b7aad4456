"""Rows that make no sense are refused, and the sequences that run stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from medusa_decoding import _native
from medusa_decoding.decoding import Rows
from medusa_decoding.engines.cpu.engine import CpuEngine, default_threads
from medusa_decoding.engines.cpu.packed import pack_model

from .random_models import CONTEXT, VOCABULARY, Texts, alone, chain, random_model, random_tree, shape_of

MODEL = random_model(shape_of())
Errors = (ValueError, IndexError)


@pytest.fixture
def texts() -> Iterator[Texts]:
    """Two sequences of 70 and 3 tokens; whatever happens to them, they go on as if nothing had."""
    texts = Texts(MODEL.engine("int8", threads=2))
    for length in (70, 3):
        texts.feed(texts.open(), [(5 * i) % VOCABULARY for i in range(length)])
    yield texts
    check_unharmed(texts)


def check_unharmed(texts: Texts) -> None:
    """All sequences have the tokens they should, and can be continued."""
    plain = MODEL.engine("int8")
    for handle, tokens in texts.tokens.items():
        assert texts.engine.model.length(handle) == len(tokens)
        assert texts.next(handle) == alone(plain, [*tokens, 3])[-1]
        texts.feed(handle, [1, 2])
        assert texts.next(handle) == alone(plain, [*texts.tokens[handle], 3])[-1]


def rows(**fields: Any) -> Rows:
    """Three rows of the second sequence and one of the first, with some of their arrays replaced."""
    good: dict[str, Any] = {
        "sequences": [2, 2, 2, 1],
        "tokens": [1, 2, 3, 4],
        "positions": [3, 4, 4, 70],
        "parents": [-1, 0, 0, -1],
    }
    arrays = {name: np.array(values, np.int64) for name, values in (good | fields).items()}
    return Rows(**arrays, wanted=np.ones(4, bool))


def test_the_rows_that_are_spoilt_below_are_good(texts: Texts) -> None:
    assert texts.engine.forward(rows()).logits(3).shape == (VOCABULARY,)


SPOILT: dict[str, dict[str, Any]] = {
    "a token below the vocabulary": {"tokens": [1, 2, -1, 4]},
    "a token above the vocabulary": {"tokens": [1, 2, VOCABULARY, 4]},
    "a token far above": {"tokens": [1, 2, 2**32 + 1, 4]},
    "a position that is taken": {"positions": [2, 3, 3, 70]},
    "a gap": {"positions": [4, 5, 5, 70]},
    "a position before the parent's": {"positions": [3, 4, 3, 70]},
    "a negative position": {"positions": [-1, 0, 0, 70]},
    "a row that is its own parent": {"parents": [-1, 1, 0, -1]},
    "a parent behind": {"parents": [-1, 2, 0, -1]},
    "a parent out of reach": {"parents": [-1, 99, 0, -1]},
    "a parent below -1": {"parents": [-2, 0, 0, -1]},
    "a parent of another sequence": {"parents": [-1, 0, 0, 1], "positions": [3, 4, 4, 5]},
    "a sequence that never was": {"sequences": [2, 2, 2, 99]},
    "a negative handle": {"sequences": [2, 2, 2, -1]},
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_rows_that_make_no_sense_are_refused(texts: Texts, spoilt: str) -> None:
    texts.engine.forward(rows())
    with pytest.raises(Errors):
        texts.engine.forward(rows(**SPOILT[spoilt]))


def test_arrays_that_differ_in_length_are_refused(texts: Texts) -> None:
    good = rows()
    for name in ("sequences", "tokens", "positions", "parents", "wanted"):
        arrays = {**vars(good), name: getattr(good, name)[:3]}
        with pytest.raises(ValueError, match="differ in length"):
            texts.engine.forward(Rows(**arrays))
    with pytest.raises(ValueError, match="at least one row"):
        texts.engine.forward(Rows(**{name: array[:0] for name, array in vars(good).items()}))


def test_a_text_ends_with_the_context(texts: Texts) -> None:
    handle = texts.open()
    texts.feed(handle, [1] * (CONTEXT - 1), 60)
    assert texts.next(handle)
    with pytest.raises(ValueError, match=f"context of {CONTEXT}"):
        texts.forward({handle: chain([1, 2])})
    texts.feed(handle, [2])
    with pytest.raises(ValueError, match=f"context of {CONTEXT}"):
        texts.next(handle)
    texts.truncate(handle, 200)


USES: dict[str, Callable[[CpuEngine, int], object]] = {
    "fork": lambda engine, handle: engine.fork(handle, 0),
    "close": lambda engine, handle: engine.close(handle),
    "truncate": lambda engine, handle: engine.truncate(handle, 0),
    "length": lambda engine, handle: engine.model.length(handle),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_sequence_is_gone(texts: Texts, use: str) -> None:
    handle = texts.engine.open()
    texts.engine.close(handle)
    for unknown in (handle, 0, -1, 2**62):
        with pytest.raises(IndexError, match="not open"):
            USES[use](texts.engine, unknown)


def test_rows_of_a_closed_sequence_cannot_be_kept(texts: Texts) -> None:
    handle = texts.engine.open()
    texts.tokens[handle] = []
    texts.forward({handle: chain([1, 2])})
    texts.engine.close(handle)
    del texts.tokens[handle]
    with pytest.raises(IndexError):
        texts.engine.commit(np.array([0]))
    assert texts.engine.open() != handle


@pytest.mark.parametrize("length", [-1, 4, 2**40])
def test_a_sequence_has_no_more_tokens_than_it_has(texts: Texts, length: int) -> None:
    for act in (texts.engine.fork, texts.engine.truncate):
        with pytest.raises(ValueError):
            act(2, length)


@pytest.mark.parametrize(
    "accepted",
    [[-1], [4], [99], [1], [0, 4], [3, 3], [3, 0, 0]],
)
def test_rows_that_do_not_continue_a_sequence_are_not_kept(texts: Texts, accepted: list[int]) -> None:
    texts.engine.forward(rows())
    with pytest.raises(Errors):
        texts.engine.commit(np.array(accepted))
    check_unharmed(texts)


def test_rows_are_kept_once(texts: Texts) -> None:
    texts.engine.forward(rows())
    texts.engine.commit(np.array([0, 2]))
    texts.tokens[2] += [1, 3]
    for again in ([0], [0, 2], [2]):
        with pytest.raises(Errors):
            texts.engine.commit(np.array(again))


def test_siblings_are_no_path(texts: Texts) -> None:
    """Two roots, and a child of the one that is not kept."""
    texts.engine.forward(rows(parents=[-1, -1, 0, -1], positions=[3, 3, 4, 70]))
    with pytest.raises(Errors):
        texts.engine.commit(np.array([1, 2]))


def test_nothing_kept_is_nothing_changed(texts: Texts) -> None:
    texts.engine.forward(rows())
    texts.engine.commit(np.array([], np.int64))


def test_only_wanted_rows_have_results(texts: Texts) -> None:
    asked = Rows(**{**vars(rows()), "wanted": np.array([False, True, False, True])})
    verified = texts.engine.forward(asked)
    expected = [verified.logits(row).tobytes() for row in (1, 3)]
    for row in (0, 2, 4, -1, 2**40):
        for ask in (verified.logits, verified.hidden, lambda row: verified.argmax(np.array([row]))):
            with pytest.raises(IndexError):
                ask(row)
    whole = texts.engine.forward(rows())
    assert [whole.logits(row).tobytes() for row in (1, 3)] == expected


def test_a_pass_without_logits_has_hidden_states(texts: Texts) -> None:
    asked = rows()
    expected = [texts.engine.forward(asked).hidden(row).tobytes() for row in range(4)]
    model = texts.engine.model
    model.forward(asked.sequences, asked.tokens, asked.positions, asked.parents, asked.wanted, logits=False)
    assert [model.hidden(row).tobytes() for row in range(4)] == expected
    with pytest.raises(IndexError):
        model.logits(0)
    with pytest.raises(IndexError):
        model.argmax(np.array([0]))


def test_engines_that_cannot_be_are_refused() -> None:
    arrays = pack_model(MODEL, "int8", 1)
    with pytest.raises(ValueError, match="no such"):
        CpuEngine(MODEL.shape, arrays, 1, "no such")
    for weight in (np.zeros((4, 12), np.float32), np.zeros((0, 16), np.float32)):
        with pytest.raises(ValueError):
            _native.pack(weight, "int8", 1)
    with pytest.raises(ValueError, match="cannot be kept as int3"):
        _native.pack(np.zeros((4, 16), np.float32), "int3", 1)


def test_an_engine_says_what_it_is() -> None:
    for weights in ("int8", "fp32"):
        engine = MODEL.engine(weights, threads=2, isa="portable")
        assert engine.description == f"cpu-{weights}-portable"
        assert (engine.weights, engine.threads) == (weights, 2)
        assert (engine.vocabulary_size, engine.context_length) == (VOCABULARY, CONTEXT)
        assert engine.weight_bytes > 0 and engine.read_bandwidth() > 0
    assert MODEL.engine("fp32").weight_bytes == 4 * MODEL.engine("int8").weight_bytes
    assert CpuEngine(MODEL.shape, pack_model(MODEL, "int8", 1)).threads == default_threads() >= 1


def test_trees_deeper_than_the_context_are_refused_whole(texts: Texts) -> None:
    handle = texts.open()
    texts.feed(handle, [1] * (CONTEXT - 2))
    tree = random_tree(np.random.default_rng(0), 40)
    assert tree.depths.max() > 2
    with pytest.raises(ValueError, match="context"):
        texts.forward({handle: tree})
    texts.truncate(handle, 10)
