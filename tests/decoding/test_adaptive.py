from __future__ import annotations

import doctest
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import (
    AdaptivePlanner,
    Decoder,
    LookupDrafter,
    NoDrafter,
    Outcome,
    Planner,
    Proposals,
    SamplingParameters,
    StepCost,
    Tree,
    adaptive,
)
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.adaptive import best_size
from medusa_decoding.decoding.best_first import best_first
from tests.decoding.simulated import CONTEXT, CPU, DEAR, Simulation, proposals
from tests.decoding.toy import KnowingDrafter, ToyEngine, decoded, random_table

EXAMPLE = Proposals(np.array([[21, 22], [31, 32]]), np.array([[0.6, 0.3], [0.5, 0.4]]))
FREE = StepCost((1, 32), {CONTEXT: (5.0, 5.0001)}, {1: 0.1})

chances = st.lists(st.floats(0.01, 1), min_size=1, max_size=12).map(lambda found: sorted(found)[::-1])


def costs(most: int, *, steps: bool = True) -> st.SearchStrategy[StepCost]:
    """Times that rise, mostly a little and at some rows much."""
    rise = st.sampled_from([0.0, 0.05, 0.2, 1.0, 3.0])
    return st.builds(
        lambda rises, draft: StepCost(
            tuple(range(1, most + 1)), {CONTEXT: tuple((5 + np.cumsum([0, *rises])).tolist())}, {1: draft}
        ),
        st.lists(rise, min_size=most - 1, max_size=most - 1),
        st.sampled_from([0.0, 0.1, 0.5]),
    )


def grown(planner: Planner, *guesses: Proposals) -> list[int]:
    """The sizes of the trees grown for sequences with these guesses."""
    count = len(guesses)
    return [len(tree) for tree in planner.grow([0] * count, guesses, [9] * count, [CONTEXT] * count)]


def test_doctests() -> None:
    results = doctest.testmod(adaptive)
    assert (results.attempted > 0, results.failed) == (True, 0)


@settings(deadline=None, derandomize=True)
@given(chances, st.data(), st.floats(0.05, 1))
def test_the_size_is_the_best_of_all(found: list[float], data: st.DataObject, rate: float) -> None:
    size = len(found) + 1
    times = data.draw(st.lists(st.floats(1, 20), min_size=size, max_size=size))
    values = [1 + sum(found[:guesses]) - rate * times[guesses] for guesses in range(size)]
    chosen = best_size(1, np.array(found), np.array(times), rate)
    assert values[chosen] == pytest.approx(max(values), abs=1e-9)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(costs(12), st.floats(0.2, 0.95), st.floats(0.3, 0.95))
def test_the_running_rate_leads_to_the_best_throughput(cost: StepCost, first: float, decay: float) -> None:
    """With the same probabilities at each step, and what they promise as outcome, no other size is better."""
    heads = np.array([[first * decay**head, (1 - first) * 0.4 * decay**head] for head in range(4)])
    guesses, planner = proposals(np.sort(heads)[:, ::-1]), AdaptivePlanner(cost, limit=12, least=0.0)
    expected = np.cumsum(best_first(0, guesses, 12).probabilities)
    times = [cost.step(rows, CONTEXT) for rows in range(1, len(expected) + 1)]
    best = max(brought / (time + cost.draft(1)) for brought, time in zip(expected, times, strict=True))
    for _ in range(600):
        [size] = grown(planner, guesses)
        planner.observe(Outcome(True, [CONTEXT], [size], [expected[size - 1]]))
    if best > 1 / times[0]:
        assert expected[size - 1] / (times[size - 1] + cost.draft(1)) == pytest.approx(best, rel=1e-3)
        assert planner.speedup == pytest.approx(best * times[0], rel=1e-2)
    else:
        assert not planner.drafts(1) or (size == 1 and cost.draft(1) == 0)


def test_as_guesses_come_true_a_millisecond_is_worth_more() -> None:
    """The example of docs/planner.md: "ran" pays at first, and no longer when the run is faster."""
    planner = AdaptivePlanner(StepCost((1, 2, 3, 4, 5), {CONTEXT: (5.0, 5.2, 5.4, 5.6, 6.6)}, {1: 0.6}))
    expected, sizes = np.cumsum([1.0, 0.6, 0.3, 0.3, 0.24]), list[int]()
    for _ in range(300):
        sizes += grown(planner, EXAMPLE)
        planner.observe(Outcome(True, [CONTEXT], [sizes[-1]], [expected[sizes[-1] - 1]]))
    assert (sizes[0], sizes[-1]) == (5, 4)
    assert planner.speedup == pytest.approx(5.0 * 2.2 / 6.2, rel=1e-2)


def test_it_looks_past_a_step_in_the_time() -> None:
    sure = proposals(np.full((5, 1), 0.95))
    # A millisecond brings 0.2 tokens. The third row, 0.9 tokens for 5.9 ms, does not pay; four more rows do.
    stepped = StepCost((1, 2, 3, 4, 5, 6), {CONTEXT: (5.0, 5.1, 11.0, 11.1, 11.2, 11.3)}, {1: 0.0})
    assert grown(AdaptivePlanner(stepped, limit=3), sure) == [2]
    assert grown(AdaptivePlanner(stepped), sure) == [6]


def test_hardly_likely_guesses_are_not_looked_at() -> None:
    # Rows that cost nothing: all guesses would pay.
    free, many = (
        StepCost((1, 2), {CONTEXT: (5.0, 5.0)}, {1: 0.0}),
        proposals(np.array([[0.5, 0.3, 0.02, 0.009]])),
    )
    assert grown(AdaptivePlanner(free), many) == [4]
    assert grown(AdaptivePlanner(free, least=0.0), many) == [5]


def test_guesses_that_are_far_from_paying_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else changes: what is left out would not have been taken."""
    sizes, real = [], adaptive.best_first

    def counted(*given: Any) -> Tree:
        sizes.append(len(real(*given)))
        return real(*given)

    monkeypatch.setattr(adaptive, "best_first", counted)
    # A row costs a tenth of a plain step.
    cost = StepCost((1, 32), {CONTEXT: (5.0, 20.5)}, {1: 0.0})
    chances = np.array([[0.5, 0.2, 0.12, 0.06, 0.045, 0.03, 0.02, 0.015]])
    found = [grown(AdaptivePlanner(cost, least=least), proposals(chances)) for least in (0.0, 0.01)]
    assert found[0] == found[1] == [4]
    assert sizes == [9, 5]


def test_more_sequences_than_the_limit_get_their_roots() -> None:
    planner = AdaptivePlanner(FREE, limit=2)
    assert grown(planner, EXAMPLE, EXAMPLE, EXAMPLE) == [1, 1, 1]


def test_dearer_contexts_get_smaller_trees() -> None:
    cost = StepCost((1, 8), {256: (5.0, 5.2), 8192: (9.0, 40.0)}, {1: 0.0})
    sizes = [len(AdaptivePlanner(cost).grow([1], [EXAMPLE], [9], [context])[0]) for context in (256, 8192)]
    assert sizes == [7, 2]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(costs(14), st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.1, 0.9)), min_size=2, max_size=3))
def test_guesses_of_several_sequences_compete_for_the_rows(
    cost: StepCost, heads: list[tuple[float, float]]
) -> None:
    """No other sizes of the trees promise more."""
    guesses = [proposals(np.array([[one], [one * fall], [one * fall]])) for one, fall in heads]
    count, limit = len(guesses), 8
    trees = [best_first(0, one, 4).probabilities for one in guesses]
    rate = count / cost.step(count, CONTEXT)

    def value(sizes: tuple[int, ...]) -> float:
        expected = sum(float(tree[:size].sum()) for tree, size in zip(trees, sizes, strict=True))
        return expected - rate * cost.step(sum(sizes), CONTEXT)

    all_sizes = product(*(range(1, len(tree) + 1) for tree in trees))
    best = max(value(sizes) for sizes in all_sizes if sum(sizes) <= limit)
    sizes = grown(AdaptivePlanner(cost, limit, least=0.0), *guesses)
    assert sum(sizes) <= limit
    assert value(tuple(sizes)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("limit", "rows"), [(1, [1, 1, 1]), (3, [1, 1, 1]), (5, [2, 2, 1]), (32, [7, 7, 7])])
def test_the_limit_is_for_all_sequences_and_roots_are_in_any_case(limit: int, rows: list[int]) -> None:
    assert grown(AdaptivePlanner(FREE, limit), EXAMPLE, EXAMPLE, EXAMPLE) == rows


def test_trees_keep_to_their_depths() -> None:
    trees = AdaptivePlanner(FREE).grow([1, 2, 3], [EXAMPLE] * 3, [0, 1, 9], [5, 6, 7])
    assert [tree.depths.max() for tree in trees] == [0, 1, 2]
    assert [tree.tokens[0] for tree in trees] == [1, 2, 3]


@pytest.mark.parametrize("cost", [CPU, DEAR])
@pytest.mark.parametrize("confidence", [0.1, 0.3, 0.5, 0.8])
def test_on_text_that_cannot_be_guessed_little_is_lost(cost: StepCost, confidence: float) -> None:
    short = [
        Simulation(cost, confidence, lambda _: 0.0, seed).run(AdaptivePlanner(cost), 128) for seed in range(8)
    ]
    assert np.mean([one.speedup for one in short]) >= 0.97
    assert Simulation(cost, confidence, lambda _: 0.0).run(AdaptivePlanner(cost), 2000).speedup >= 0.98


class Always(AdaptivePlanner):
    """Never pauses, and values time at a fixed rate."""

    rate = 1.0
    speedup = property(lambda self: self.rate)

    def drafts(self, count: int) -> bool:
        return True


@pytest.mark.parametrize("cost", [CPU, DEAR])
@pytest.mark.parametrize("confidence", [0.3, 0.6, 0.85])
def test_good_guesses_are_used_as_well_as_with_the_best_fixed_rate(cost: StepCost, confidence: float) -> None:
    best = 0.0
    for rate in (1.0, 1.2, 1.4, 1.7, 2.0, 2.5):
        planner = Always(cost)
        planner.rate = rate
        best = max(best, Simulation(cost, confidence).run(planner, 1000).speedup)
    assert best > 1.1
    assert Simulation(cost, confidence).run(AdaptivePlanner(cost), 1000).speedup >= 0.96 * best


def test_guessing_is_taken_up_again_when_the_text_changes() -> None:
    changing = Simulation(CPU, 0.7, lambda step: float(step >= 300)).run(AdaptivePlanner(CPU), 600)
    asked = np.array(changing.asked)
    assert asked[100:300].mean() < 0.1
    assert asked[450:].mean() > 0.9
    assert changing.rows[450:].count(1) < 15


def pauses(planner: Planner, probes: int, emitted: int = 1) -> list[int]:
    """The lengths of the pauses after steps with guesses, each of 6 rows that bring `emitted` tokens."""
    found = []
    for _ in range(probes):
        planner.observe(Outcome(True, [CONTEXT], [6], [emitted]))
        found.append(0)
        while not planner.drafts(1):
            planner.observe(Outcome(False, [CONTEXT], [1], [1]))
            found[-1] += 1
    return found


def test_pauses_double_and_end_with_a_success() -> None:
    planner = AdaptivePlanner(CPU)
    # A step of 6 rows with drafting costs 0.39 of a plain step beyond it: one in 40 steps loses a hundredth.
    assert pauses(planner, 7) == [0, 4, 8, 16, 32, 40, 40]
    assert pauses(planner, 1, emitted=3) == [0]
    # What was gained covers the next losses, then it begins anew.
    assert pauses(planner, 6) == [0, 0, 0, 0, 4, 8]


def test_cheap_attempts_are_made_more_often() -> None:
    found = pauses(AdaptivePlanner(StepCost((1, 6), {1: (5.0, 5.0)}, {1: 0.19})), 30)
    first = found.index(1)
    assert found[:first] == [0] * first and found[first : first + 5] == [1, 2, 4, 4, 4]


def test_credit_is_bounded() -> None:
    planner = AdaptivePlanner(CPU)
    assert pauses(planner, 50, emitted=5) == [0] * 50
    assert sum(length == 0 for length in pauses(planner, 40)) <= 21


def test_losses_do_not_make_time_look_cheap() -> None:
    planner = AdaptivePlanner(DEAR)
    for _ in range(20):
        planner.observe(Outcome(True, [CONTEXT], [32], [1]))
    assert planner.speedup == 1


def toy(planner: Planner, text: list[int], right: float) -> tuple[ToyEngine, KnowingDrafter, Decoder]:
    base, drafter = ToyEngine(random_table(6, seed=1)), KnowingDrafter([text], 6, right=right)
    return base, drafter, Decoder(base, drafter, planner)


def test_a_paused_drafter_is_not_asked() -> None:
    greedy = SamplingParameters()
    [text] = decoded(Decoder(ToyEngine(random_table(6, seed=1))), Text([1, 2], greedy, max_tokens=100))
    _, drafter, decoder = toy(AdaptivePlanner(CPU), [1, 2, *text], right=0.0)
    drafter.texts = []
    guessing = Text([1, 2], greedy, max_tokens=100)
    sizes = {len(step.tree) for step in decoder.decode([guessing]) if step.tree is not None}
    assert guessing.tokens == text
    assert len(drafter.seen) < 60
    assert min(sizes) == 1


@pytest.mark.parametrize("right", [0.3, 1.0])
def test_the_same_texts_get_the_same_trees_whatever_the_clock_says(
    right: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, seen = SamplingParameters(), []
    [text] = decoded(Decoder(ToyEngine(random_table(6, seed=1))), Text([1, 2], greedy, max_tokens=60))
    for clock in (iter(range(10**6)), iter(range(10**9, 0, -1000))):
        monkeypatch.setattr("time.perf_counter", lambda clock=clock: float(next(clock)))
        planner = AdaptivePlanner(CPU)
        base, _, decoder = toy(planner, [1, 2, *text], right)
        # One planner, several decodes in turn, the first left unfinished.
        unfinished = decoder.decode([Text([1, 2], greedy, max_tokens=60)])
        next(unfinished), next(unfinished)
        assert decoded(decoder, Text([1, 2], greedy, max_tokens=60)) == [text]
        assert decoded(Decoder(base, NoDrafter(), planner), Text([1, 2], greedy, max_tokens=9)) == [text[:9]]
        assert decoded(decoder, *(Text([1, 2], greedy, max_tokens=30) for _ in range(3))) == [text[:30]] * 3
        seen.append(base.sizes)
    assert seen[0] == seen[1]
    assert max(seen[0]) > 5


def test_heads_are_paused_though_lookup_succeeds_beside_them() -> None:
    """Of six tokens lookup guessed five: the heads brought nothing and took time."""
    planner = AdaptivePlanner(DEAR)
    for _ in range(3):
        planner.observe(Outcome(True, [CONTEXT], [16], [6], looked_up_rows=5, looked_up_tokens=5))
    assert not planner.drafts(1)
    assert planner.speedup > 1
    by_heads = AdaptivePlanner(DEAR)
    for _ in range(3):
        by_heads.observe(Outcome(True, [CONTEXT], [16], [6]))
    assert by_heads.drafts(1)


class Contrary(ToyEngine):
    """After any two tokens follows another one each time: what is looked up is never right."""

    def logits_after(self, text):  # type: ignore[no-untyped-def]
        pair = text[-2:]
        times = sum(text[at - 2 : at] == pair for at in range(2, len(text)))
        return np.eye(self.vocabulary_size)[(sum(pair) + times) % self.vocabulary_size]


@pytest.mark.parametrize("cost", [CPU, DEAR], ids=["cheap rows", "dear rows"])
def test_lookup_that_is_always_wrong_costs_little(cost: StepCost) -> None:
    planner, base = AdaptivePlanner(cost), Contrary(np.zeros((1, 1, 12)))
    text = Text([1, 2, 3, 1, 2, 3], max_tokens=400)
    steps = list(Decoder(base, planner=planner, lookup=LookupDrafter()).decode([text]))
    rows = [len(step.tree) for step in steps if step.tree is not None]
    assert text.statistics.acceleration_rate < 1.05, "the text is contrary"
    assert text.statistics.looked_up > 0
    took = sum(cost.step(count, CONTEXT) for count in rows)
    plain = cost.step(1, CONTEXT) * text.statistics.tokens
    assert took < 1.03 * plain


def test_lookup_pays_where_a_text_repeats_itself() -> None:
    table = np.zeros((6, 6, 6))
    table[:, [1, 2, 3, 4], [2, 3, 4, 1]] = 9.0
    for cost in (CPU, DEAR):
        text = Text([1, 2, 3, 4, 1], max_tokens=200)
        decoder = Decoder(ToyEngine(table), planner=AdaptivePlanner(cost), lookup=LookupDrafter())
        rows = [len(step.tree) for step in decoder.decode([text]) if step.tree is not None]
        took = sum(cost.step(count, CONTEXT) for count in rows)
        assert cost.step(1, CONTEXT) * text.statistics.tokens / took > 3


def test_no_guesses_are_asked_for_where_roots_fill_the_step() -> None:
    planner = AdaptivePlanner(FREE, limit=3)
    assert [planner.drafts(count) for count in (1, 2, 3, 4)] == [True, True, False, False]
    assert grown(planner, EXAMPLE, EXAMPLE, EXAMPLE) == [1, 1, 1]
    assert sum(grown(planner, EXAMPLE, EXAMPLE)) == 3
