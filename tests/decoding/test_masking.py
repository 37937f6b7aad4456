from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import (
    BestFirstPlanner,
    Decoder,
    Drafter,
    LookupDrafter,
    NoDrafter,
    Planner,
    Proposals,
    SamplingParameters,
    Step,
    Tree,
    TypicalAcceptance,
)
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.masking import permitted_guesses, permitted_tree
from medusa_decoding.decoding.sampling import distribution, uniform
from medusa_decoding.decoding.tree import BoolArray
from tests.decoding.test_loop import planners, samplings
from tests.decoding.toy import KnowingDrafter, RandomDrafter, ToyEngine, decoded, random_table

VOCABULARY, END = 6, 5
PROMPT = [1, 2]


class Automaton:
    """Allows what the sum of the tokens so far says; asked wrongly, it fails.

    table: (states, vocabulary), true where a token may come.
    """

    def __init__(self, table: BoolArray, broken_after: int | None = None, end: int = END) -> None:
        self.table = table
        self.text: list[int] = []
        self.broken_after = broken_after
        self.end = end

    def allowed(self, path: Sequence[int]) -> BoolArray:
        if self.broken_after is not None and len(self.text) >= self.broken_after:
            raise RuntimeError("broken")
        state = sum(self.text) % len(self.table)
        for token in path:
            assert token != self.end, "asked beyond the end"
            assert self.table[state, token], "asked after a token that is not allowed"
            state = (state + token) % len(self.table)
        return self.table[state].copy()

    def advance(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            assert self.allowed([])[token]
            self.text.append(token)


def random_automaton(seed: int) -> BoolArray:
    table = np.random.default_rng(seed).random((7, VOCABULARY)) < 0.4
    table[np.arange(7), np.random.default_rng(seed).integers(0, VOCABULARY, 7)] = True
    return table


def engine() -> ToyEngine:
    return ToyEngine(random_table(VOCABULARY, seed=1))


def plain(sampling: SamplingParameters, table: BoolArray, size: int = 20) -> list[int]:
    """The constrained text without the loop."""
    base, text = engine(), list[int]()
    while len(text) < size and END not in text:
        allowed = table[sum(text) % len(table)]
        found = distribution(base.logits_after([*PROMPT, *text]), sampling, PROMPT, text, allowed)
        text.append(found.draw(uniform(sampling.seed, 0, len(text))))
    return text


def masked(sampling: SamplingParameters, table: BoolArray, **fields: object) -> Text:
    return Text(PROMPT, sampling, 20, frozenset([END]), mask=Automaton(table), **fields)  # type: ignore[arg-type]


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    samplings,
    planners,
    st.sampled_from(["knowing", "random", "none"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_constrained_text_is_the_plain_one_with_any_tree(
    sampling: SamplingParameters, planner: Planner, heads: str, looks_up: bool, seed: int
) -> None:
    table = random_automaton(seed)
    expected = plain(sampling, table)
    drafters: dict[str, Drafter] = {
        "knowing": KnowingDrafter([[*PROMPT, *expected]], VOCABULARY, right=0.8),
        "random": RandomDrafter(3, 4, VOCABULARY, seed),
        "none": NoDrafter(),
    }
    lookup = LookupDrafter() if looks_up else None
    beside = Text([3, 4], sampling, max_tokens=9)
    decoder = Decoder(engine(), drafters[heads], planner, lookup=lookup)
    text, free = decoded(decoder, masked(sampling, table), beside)
    assert text == expected
    assert decoded(Decoder(engine()), masked(sampling, table)) == [expected]
    assert decoded(Decoder(engine()), Text([3, 4], sampling, max_tokens=9)) == [free]


def test_a_mask_changes_the_text() -> None:
    table = random_automaton(3)
    sampling = SamplingParameters(temperature=0.7)
    [free] = decoded(Decoder(engine()), Text(PROMPT, sampling, max_tokens=20, stop_ids=frozenset([END])))
    assert plain(sampling, table) != free


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_row_is_spent_on_what_the_mask_forbids(temperature: float) -> None:
    table = random_automaton(11)
    table[:, END] = False
    table[:, 0] = True
    text = masked(SamplingParameters(temperature=temperature), table)
    decoder = Decoder(engine(), RandomDrafter(3, 5, VOCABULARY, 2), BestFirstPlanner(12))
    guesses, state = 0, 0
    for step in decoder.decode([text]):
        if step.tree is not None:
            states = {0: (sum(text.tokens) - sum(step.tokens)) % len(table)}
            for node, parent in enumerate(step.tree.parents.tolist()[1:], 1):
                token = int(step.tree.tokens[node])
                assert table[states[parent], token]
                states[node] = (states[parent] + token) % len(table)
            guesses += len(states) - 1
        state += sum(step.tokens)
    assert guesses > 10


def test_guesses_that_are_allowed_come_first() -> None:
    mask = Automaton(np.array([[True, False, True, False, True, False]]))
    branches = Tree(np.array([9, 1, 4, 2]), np.array([-1, 0, 0, 2]), np.array([1.0, 0.5, 0.4, 0.3]))
    guesses = Proposals(
        np.array([[1, 2, 4], [3, 1, 2]]), np.array([[0.5, 0.3, 0.1], [0.4, 0.3, 0.2]]), branches
    )
    found = permitted_guesses(guesses, mask, frozenset())
    assert found.tokens.tolist() == [[2, 4, 1], [3, 1, 2]]
    assert found.probabilities.tolist() == [[0.3, 0.1, 0.0], [0.4, 0.3, 0.2]]
    assert found.branches is not None and found.branches.tokens.tolist() == [9, 4, 2]
    assert found.branches.parents.tolist() == [-1, 0, 1]
    assert guesses.tokens.tolist()[0] == [1, 2, 4]


def test_nothing_stands_below_an_end() -> None:
    mask = Automaton(np.ones((1, VOCABULARY), np.bool_))
    tree = Tree(np.array([0, END, 1, 2]), np.array([-1, 0, 1, 0]), np.array([1.0, 0.5, 0.4, 0.3]))
    assert permitted_tree(tree, mask, frozenset([END])).tokens.tolist() == [0, END, 2]
    # A text may go on after its root, whatever that is.
    ending = Tree(np.array([END, 1]), np.array([-1, 0]), np.array([1.0, 0.5]))
    assert permitted_tree(ending, mask, frozenset([END])) is ending


def test_typical_acceptance_keeps_to_the_mask() -> None:
    table = random_automaton(5)
    texts = [masked(SamplingParameters(temperature=1.0), table, choice=choice) for choice in range(20)]
    drafter = RandomDrafter(3, 5, VOCABULARY, 2)
    decoded(Decoder(engine(), drafter, BestFirstPlanner(12), TypicalAcceptance()), *texts)
    for text in texts:
        for place, token in enumerate(text.tokens):
            assert table[sum(text.tokens[:place]) % len(table), token]
    assert sum(sum(text.statistics.accepted) for text in texts) > 0


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("guessing", [True, False])
def test_a_fault_in_one_text_ends_that_text_alone(after: int, guessing: bool) -> None:
    table = np.ones((1, VOCABULARY), np.bool_)
    sampling = SamplingParameters(temperature=0.7)

    def texts() -> list[Text]:
        return [Text(PROMPT, sampling, 15), Text([4], sampling, 15)]

    broken = Text(PROMPT, sampling, 15, mask=Automaton(table, broken_after=after, end=-1))
    drafter = RandomDrafter(3, 3, VOCABULARY, 0) if guessing else None
    base = engine()
    decoder = Decoder(base, drafter, BestFirstPlanner(6), isolates=True)
    good = texts()
    steps: list[Step] = []
    while running := [
        one for one in [good[0], broken, good[1]] if one.finish_reason is None and not one.error
    ]:
        steps += decoder.step(running)
    assert isinstance(broken.error, RuntimeError)
    assert len(broken.tokens) >= after
    assert all(step.sequence is not broken or step.tokens for step in steps)
    assert [one.tokens for one in good] == decoded(Decoder(engine()), *texts())
    with pytest.raises(RuntimeError, match="broken"):
        decoded(
            Decoder(engine(), drafter),
            Text(PROMPT, sampling, mask=Automaton(table, broken_after=after, end=-1)),
        )


def test_a_mask_that_allows_nothing_is_an_error() -> None:
    text = Text(PROMPT, mask=Automaton(np.zeros((1, VOCABULARY), np.bool_)))
    with pytest.raises(ValueError, match="allows no token"):
        decoded(Decoder(engine()), text)
