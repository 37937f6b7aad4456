from __future__ import annotations

import doctest
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import suffix_index
from medusa_decoding.decoding.suffix_index import LONGEST, ORDER, Match, SuffixIndex

# Few tokens, so that they repeat; some texts repeat a whole phrase, which gives long matches.
texts = st.one_of(
    st.lists(st.integers(0, 2), max_size=60),
    st.builds(
        lambda phrase, times, rest: phrase * times + rest + phrase,
        st.lists(st.integers(0, 3), min_size=1, max_size=40),
        st.integers(1, 3),
        st.lists(st.integers(0, 3), max_size=5),
    ),
)


def naive(text: list[int], end: list[int]) -> Match | None:
    """The same by looking at every place of the text."""
    for size in range(min(ORDER, len(end)), 0, -1):
        places = [at for at in range(size, len(text)) if text[at - size : at] == end[-size:]]
        if places:
            break
    else:
        return None
    last = places[-1]
    others = [place for place in places if text[place] != text[last]]
    streak = len([place for place in places if not others or place > others[-1]])
    length = max(
        size
        for size in range(1, min(LONGEST, last, len(end)) + 1)
        if text[last - size : last] == end[len(end) - size :]
    )
    return Match(last, length, streak, others[-1] if others else -1)


def test_doctests() -> None:
    results = doctest.testmod(suffix_index)
    assert (results.attempted > 0, results.failed) == (True, 0)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(texts, st.lists(st.integers(0, 3), max_size=6))
def test_matches_are_those_of_a_search_of_the_whole_text(text: list[int], guessed: list[int]) -> None:
    index = SuffixIndex(text)
    assert index.tokens == text and len(index) == len(text)
    assert index.find(index.end) == naive(text, text[-LONGEST:])
    end = [*text, *guessed][-LONGEST:]
    assert index.find(end) == naive(text, end)


@settings(deadline=None, derandomize=True)
@given(texts)
def test_matches_are_right_after_every_token(text: list[int]) -> None:
    index = SuffixIndex()
    for size, token in enumerate(text):
        assert index.find(index.end) == naive(text[:size], text[:size][-LONGEST:])
        index.append(token)


def test_a_match_longer_than_the_order_is_measured_up_to_the_longest() -> None:
    phrase = list(range(50))
    for known in (5, ORDER, ORDER + 1, 20, LONGEST, 45):
        index = SuffixIndex([*phrase, 99, *phrase[:known]])
        assert index.find(index.end) == Match(known, min(known, LONGEST), 1, -1)


def test_memory_grows_with_the_text_alone() -> None:
    random.seed(1)
    common = SuffixIndex([int(random.paretovariate(0.7)) for _ in range(4000)])
    loop = SuffixIndex(list(range(100)) * 40)
    for index in (common, loop):
        assert len(index._contexts) <= ORDER * len(index)
    assert len(common._contexts) < 3 * len(common)
    assert len(loop._contexts) <= ORDER * 100 + len(loop) // 100
