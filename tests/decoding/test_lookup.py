from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import Context, LookupDrafter, Tree
from medusa_decoding.decoding.hit_rates import FIRST
from medusa_decoding.decoding.lookup import HitRates


class Owner:
    """What stands for a sequence."""


def branches(drafter: LookupDrafter, tokens: list[int], owner: object = None) -> Tree:
    [proposals] = drafter.propose([Context(tokens, None, owner)])
    assert proposals.depth == 0
    assert proposals.branches is not None
    return proposals.branches


def test_the_end_goes_on_as_it_did_before() -> None:
    grown = branches(LookupDrafter(), [5, 6, 7, 8, 9, 5, 6])
    assert grown.tokens.tolist()[:4] == [6, 7, 8, 9]
    assert grown.parents.tolist()[:4] == [-1, 0, 1, 2]
    chances = [FIRST[1][0], FIRST[2][0], FIRST[3][0]]
    product = [1.0, chances[0], chances[0] * chances[1], chances[0] * chances[1] * chances[2]]
    assert grown.probabilities.tolist()[:4] == pytest.approx(product)


def test_two_continuations_make_two_branches() -> None:
    grown = branches(LookupDrafter(), [1, 2, 3, 1, 2, 4, 1, 2])
    children = {int(grown.tokens[node]): grown.probabilities[node] for node in grown.children(0)}
    assert set(children) == {3, 4}
    assert children[4] > children[3]


def test_new_words_have_no_continuation() -> None:
    assert branches(LookupDrafter(), [1, 2, 3]).tokens.tolist() == [3]
    assert branches(LookupDrafter(), [1]).tokens.tolist() == [1]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 30))
def test_branches_are_a_tree_of_the_likeliest(text: list[int], nodes: int) -> None:
    grown = branches(LookupDrafter(nodes, least=0.05), text)
    everything = branches(LookupDrafter(100, least=0.05), text)
    assert len(grown) == min(nodes + 1, len(everything))
    assert grown.tokens.tolist() == everything.tokens[: len(grown)].tolist()
    chances = grown.probabilities.tolist()
    assert chances == sorted(chances, reverse=True) and chances[-1] >= 0.05
    assert all(parent < node for node, parent in enumerate(grown.parents.tolist()))
    pairs = list(zip(grown.parents.tolist(), grown.tokens.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for node in range(len(grown)):
        below = sum(grown.probabilities[grown.children(node)])
        assert below <= grown.probabilities[node] + 1e-9


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8),
)
def test_a_growing_text_gets_the_guesses_of_a_new_one(
    first: list[list[int]], second: list[list[int]]
) -> None:
    """Also beside another text, step by step."""
    drafter, owners = LookupDrafter(), (Owner(), Owner())
    written: tuple[list[int], list[int]] = ([], [])
    for pieces in zip(first, second, strict=False):
        for text, piece in zip(written, pieces, strict=True):
            text.extend(piece)
        found = drafter.propose(
            [Context(list(text), None, owner) for text, owner in zip(written, owners, strict=True)]
        )
        for text, guesses in zip(written, found, strict=True):
            afresh = LookupDrafter()
            afresh.rates = drafter.rates
            assert guesses.branches is not None
            expected = branches(afresh, text)
            assert guesses.branches.tokens.tolist() == expected.tokens.tolist()
            assert guesses.branches.probabilities.tolist() == expected.probabilities.tolist()


class Counting(HitRates):
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[bool, bool]] = []

    def observe(self, match, first, second):  # type: ignore[no-untyped-def]
        self.told.append((first, second))
        super().observe(match, first, second)


def test_each_written_token_teaches_the_rates_and_the_prompt_does_not() -> None:
    drafter, owner = LookupDrafter(), Owner()
    drafter.rates = rates = Counting()
    text = [1, 2, 3, 8, 1, 2, 4, 7, 2]
    branches(drafter, text, owner)
    assert rates.told == []
    # After 2 stood a 3 and then a 4; after 3 an 8, after 8 a 1; nothing yet after 9.
    branches(drafter, [*text, 3, 8], owner)
    assert rates.told == [(False, True), (True, False)]
    branches(drafter, [*text, 3, 8, 9, 1], owner)
    assert rates.told[2:] == [(False, False)]


def test_what_a_text_holds_is_forgotten_with_it() -> None:
    drafter, owner = LookupDrafter(), Owner()
    branches(drafter, [1, 2, 1], owner)
    assert len(drafter._indices) == 1
    del owner
    gc.collect()
    assert len(drafter._indices) == 0
