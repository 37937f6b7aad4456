from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding.sequence import common_length
from medusa_decoding.serving.prefixes import BLOCK, KeptPrefixes
from tests.decoding.toy import ToyEngine, random_table

# Texts that share beginnings: few tokens, in runs.
texts = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 20)), min_size=1, max_size=5).map(
    lambda runs: [token for token, count in runs for _ in range(count)]
)


def opened(engine: ToyEngine, tokens: list[int]) -> int:
    handle = engine.open()
    engine.texts[handle] = list(tokens)
    return handle


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(st.tuples(st.booleans(), texts), max_size=20), st.integers(0, 120))
def test_the_longest_beginning_is_found_and_no_more_kept_than_allowed(
    acts: list[tuple[bool, list[int]]], most: int
) -> None:
    engine = ToyEngine(random_table(2, seed=0))
    kept = KeptPrefixes(engine, most)
    for keeps, tokens in acts:
        if keeps:
            kept.keep(opened(engine, tokens), tokens)
        else:
            found, length = kept.find(tokens)
            held = list(engine.texts.values())
            best = max((common_length(one, tokens[:-1]) for one in held), default=0)
            # Of texts that share whole blocks any will do, so up to a block may be missed.
            assert length <= best and (length >= BLOCK or length == 0)
            assert length // BLOCK == best // BLOCK
            if found is not None:
                fork = kept.fork(found, length)
                assert engine.texts[fork] == tokens[:length]
                engine.close(fork)
        assert sum(kept.lengths) <= most
        assert sorted(kept.lengths) == sorted(len(text) for text in engine.texts.values())
        assert all(length >= BLOCK for length in kept.lengths)
    kept.clear()
    assert engine.texts == {} and kept._by_beginning == {}


def test_the_least_recently_used_goes_first() -> None:
    engine = ToyEngine(random_table(9, seed=0))
    kept = KeptPrefixes(engine, 3 * 20)
    for token in (1, 2, 3):
        kept.keep(opened(engine, [token] * 20), [token] * 20)
    found, length = kept.find([1] * 30)
    assert found is not None and length == 20
    engine.close(kept.fork(found, length))
    kept.keep(opened(engine, [4] * 20), [4] * 20)
    assert sorted(text[0] for text in engine.texts.values()) == [1, 3, 4]
    assert kept.evict() and sorted(text[0] for text in engine.texts.values()) == [1, 4]


def test_a_text_takes_the_place_of_its_beginnings() -> None:
    engine = ToyEngine(random_table(9, seed=0))
    kept = KeptPrefixes(engine, 1000)
    text = np.random.default_rng(0).integers(0, 9, 90).tolist()
    for length in (20, 50, 90, 70, 90):
        kept.keep(opened(engine, text[:length]), text[:length])
    assert list(engine.texts.values()) == [text]
    assert kept.find(text)[1] == 89


def test_a_last_token_is_always_run() -> None:
    engine = ToyEngine(random_table(9, seed=0))
    kept = KeptPrefixes(engine, 1000)
    kept.keep(opened(engine, [1] * BLOCK), [1] * BLOCK)
    assert kept.find([1] * BLOCK) == (None, 0)
    assert kept.find([1] * (BLOCK + 1))[1] == BLOCK
