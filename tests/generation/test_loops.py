from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.generation.loops import GRAM, is_loop, repeated_tokens


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2), max_size=60))
def test_repeated_tokens_are_those_of_8_grams_seen_before(tokens: list[int]) -> None:
    repeated = {
        place
        for start in range(len(tokens) - GRAM + 1)
        for earlier in range(start)
        if tokens[earlier : earlier + GRAM] == tokens[start : start + GRAM]
        for place in range(start, start + GRAM)
    }
    assert repeated_tokens(tokens) == len(repeated)


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([], False),
        ([7] * 8, False),  # said once only
        ([7] * 20, True),
        ([1, 2, 3] * 20, True),
        (list(range(40)), False),
        ([*range(40), *[40, 41] * 18], False),  # 34 of 76 tokens repeat
        ([*range(40), *[40, 41] * 24], True),  # 46 of 88
        ([*range(30), *range(30)], False),  # exactly half
        ([*range(30), *range(30), *range(8)], True),
        # A counter that changes does not save it.
        ([token for number in range(6) for token in (*range(20), 100 + number)], True),
    ],
)
def test_loop_is_more_than_half_repeated(tokens: list[int], loop: bool) -> None:
    assert is_loop(tokens) is loop
