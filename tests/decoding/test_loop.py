from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import (
    LOOKUP,
    AdaptivePlanner,
    BestFirstPlanner,
    Decoder,
    Drafter,
    LookupDrafter,
    NoDrafter,
    Outcome,
    Planner,
    SamplingParameters,
    StaticPlanner,
    Step,
    StepCost,
    TypicalAcceptance,
)
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.tree import parse_choices
from tests.decoding.toy import KnowingDrafter, RandomDrafter, ToyEngine, decoded, random_table

VOCABULARY = 6
PLAIN = SamplingParameters(temperature=0.7, top_p=0.9)
PENALISED = SamplingParameters(
    temperature=0.7, top_p=0.9, repetition_penalty=1.3, presence_penalty=0.2, frequency_penalty=0.1
)
CHOICES = parse_choices([[0], [1], [2], [0, 0], [0, 1], [1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0, 0]])


def engine(context_length: int = 1000) -> ToyEngine:
    return ToyEngine(random_table(VOCABULARY, seed=1), context_length)


def plain(prompt: list[int], sampling: SamplingParameters = PLAIN, max_tokens: int = 30) -> list[int]:
    """The text without the loop: one token after the other."""
    from medusa_decoding.decoding.sampling import distribution, uniform

    base, text = engine(), list[int]()
    for index in range(max_tokens):
        found = distribution(base.logits_after([*prompt, *text]), sampling, prompt, text)
        text.append(found.draw(uniform(sampling.seed, 0, index)))
    return text


def knowing(prompt: list[int], text: list[int], right: float = 1.0, heads: int = 4) -> KnowingDrafter:
    return KnowingDrafter([[*prompt, *text]], VOCABULARY, heads=heads, right=right)


# Rows are nearly free, or dear: large trees, or trees only now and then.
COSTS = (
    StepCost((1, 16), {0: (5.0, 5.1), 20: (5.0, 9.0)}, {1: 0.1}),
    StepCost((1, 2), {0: (5.0, 7.0)}, {1: 2.0, 4: 3.0}),
)
planners = st.one_of(
    st.builds(AdaptivePlanner, st.sampled_from(COSTS), st.integers(1, 20)),
    st.builds(BestFirstPlanner, st.integers(1, 20)),
    st.sets(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), max_size=8).map(
        lambda paths: StaticPlanner(
            parse_choices({path[:size] for path in paths for size in range(1, len(path) + 1)})
        )
    ),
)
samplings = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    top_p=st.sampled_from([1.0, 0.9]),
    top_k=st.sampled_from([0, 3]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.4]),
    frequency_penalty=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    samplings,
    planners,
    st.sampled_from(["knowing", "random", "none"]),
    st.booleans(),
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
    st.integers(0, 9),
)
def test_the_text_is_the_plain_one_with_any_tree(
    sampling: SamplingParameters, planner: Planner, heads: str, looks_up: bool, prompt: list[int], seed: int
) -> None:
    expected = plain(prompt, sampling, 15)
    drafters: dict[str, Drafter] = {
        "knowing": knowing(prompt, expected, right=0.8),
        "random": RandomDrafter(3, 3, VOCABULARY, seed),
        "none": NoDrafter(),
    }
    lookup = LookupDrafter() if looks_up else None
    decoder = Decoder(engine(), drafters[heads], planner, prefill_rows=4, lookup=lookup)
    assert decoded(decoder, Text(prompt, sampling, max_tokens=15)) == [expected]
    assert decoded(Decoder(engine()), Text(prompt, sampling, max_tokens=15)) == [expected]


def test_a_right_guess_saves_a_step() -> None:
    prompt = [1, 2]
    expected = plain(prompt)
    text = Text(prompt, PLAIN, max_tokens=11)
    steps = list(Decoder(engine(), knowing(prompt, expected), BestFirstPlanner(16)).decode([text]))
    assert text.tokens == expected[:11]
    assert [step.tokens for step in steps] == [expected[:1], expected[1:6], expected[6:11]]
    assert [step.guessed for step in steps] == [0, 4, 4]
    assert [step.sources for step in steps] == [[0], [1, 2, 3, 4, 0], [1, 2, 3, 4, 0]]
    assert [step.tree is None for step in steps] == [True, False, False]
    assert text.statistics.acceleration_rate == 5
    assert text.statistics.tokens == 10
    assert text.statistics.accepted == [2, 2, 2, 2]


def test_the_drafter_is_told_at_which_temperature_each_text_is_drawn() -> None:
    drafter = knowing([1, 2], plain([1, 2]))
    texts = [Text([1, 2], max_tokens=4), Text([1, 2], SamplingParameters(temperature=0.7), max_tokens=4)]
    decoded(Decoder(engine(), drafter), *texts)
    assert {context.temperature for context in drafter.seen} == {0.0, 0.7}


def test_the_drafter_sees_the_text_and_the_row_that_decided_the_root() -> None:
    prompt = [1, 2]
    drafter = knowing(prompt, plain(prompt), right=0.6)
    decoded(Decoder(engine(), drafter, BestFirstPlanner(9)), Text(prompt, PLAIN, max_tokens=20))
    assert len(drafter.seen) > 3
    for context in drafter.seen:
        assert tuple(context.tokens[:-1]) == context.hidden
        assert context.root == context.tokens[-1]


def halved(text: list[int], at: int) -> tuple[frozenset[int], int]:
    """Stop ids that end `text` inside of a step from token `at` on, and where."""
    stop = text[at]
    return frozenset([stop]), text.index(stop) + 1


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("way", ["stop_ids", "halt", "max_tokens"])
def test_an_end_inside_an_accepted_path_trims_exactly(at: int, way: str) -> None:
    prompt, base = [1, 2, 3], engine()
    expected = plain(prompt)
    stop_ids, size = halved(expected, at) if way == "stop_ids" else (frozenset[int](), at + 1)
    told: list[int] = []

    def halt(token: int) -> bool:
        told.append(token)
        return way == "halt" and len(told) == size

    text = Text(prompt, PLAIN, max_tokens=size if way == "max_tokens" else 30, stop_ids=stop_ids, halt=halt)
    steps = list(Decoder(base, knowing(prompt, expected), BestFirstPlanner(16)).decode([text]))
    assert text.tokens == expected[:size]
    assert text.finish_reason == ("length" if way == "max_tokens" else "stop")
    assert told == (expected[:size] if way != "stop_ids" else expected[: size - 1])
    assert text.handle is not None
    # The last token is decided and not run: the cache holds all before it, and nothing of the trimmed path.
    assert base.texts[text.handle] == [*prompt, *expected[: size - 1]]
    assert text.committed == len(prompt) + size - 1
    assert text.hidden == (*prompt, *expected[: size - 1])
    assert [token for step in steps for token in step.tokens] == text.tokens
    assert text.statistics.tokens == size - 1
    assert sum(text.statistics.accepted) == sum(step.guessed for step in steps)
    assert all(0 <= step.guessed <= len(step.tokens) for step in steps)


def test_a_stop_token_that_was_guessed_counts_as_guessed() -> None:
    prompt = [1, 2]
    expected = plain(prompt)
    stop_ids, size = frozenset([expected[2]]), expected.index(expected[2]) + 1
    text = Text(prompt, PLAIN, stop_ids=stop_ids)
    steps = list(Decoder(engine(), knowing(prompt, expected)).decode([text]))
    assert steps[-1].guessed == len(steps[-1].tokens) == size - 1
    assert sum(text.statistics.accepted) == size - 1


def test_stop_wins_over_length() -> None:
    prompt = [1, 2]
    expected = plain(prompt)
    stop_ids, size = halved(expected, 3)
    text = Text(prompt, PLAIN, max_tokens=size, stop_ids=stop_ids)
    decoded(Decoder(engine()), text)
    assert text.finish_reason == "stop"


def test_a_finished_text_gets_no_rows() -> None:
    short, long = Text([1, 2], PLAIN, max_tokens=1), Text([1, 2], PLAIN, max_tokens=5)
    base = engine()
    steps = list(Decoder(base).decode([short, long]))
    assert [step.sequence for step in steps] == [short, long, long, long, long, long]
    assert base.sizes == [4, 1, 1, 1, 1]
    assert list(Decoder(base).decode([short, long])) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
def test_a_long_prompt_goes_in_pieces(rows: int) -> None:
    prompt, base = [1, 2, 3, 4, 5, 0, 1, 2], engine()
    text = Text(prompt, PLAIN, max_tokens=3)
    steps = list(Decoder(base, prefill_rows=rows).decode([text]))
    pieces = -(-len(prompt) // rows)
    assert base.sizes[:pieces] == [rows] * (len(prompt) // rows) + [len(prompt) % rows] * (
        len(prompt) % rows > 0
    )
    assert [step.tokens for step in steps[: pieces - 1]] == [[]] * (pieces - 1)
    assert text.tokens == plain(prompt)[:3]
    assert (text.statistics.prompt_tokens, text.statistics.steps, text.statistics.tokens) == (8, 2, 2)


def test_a_handle_is_used_again() -> None:
    base = engine()
    first = Text([1, 2, 3], PLAIN, max_tokens=6)
    decoded(Decoder(base), first)
    assert first.handle is not None
    shared = [*first.prompt, *first.tokens[:4]]
    base.truncate(first.handle, len(shared))
    prompt = [*shared, 5, 4]
    again = Text(prompt, PLAIN, max_tokens=6, handle=first.handle, committed=len(shared))
    assert decoded(Decoder(base, knowing(prompt, plain(prompt)), prefill_rows=1), again) == [
        plain(prompt)[:6]
    ]
    assert again.statistics.prompt_tokens == 2
    assert again.handle == first.handle


@pytest.mark.parametrize("committed", [-1, 3, 4])
def test_a_whole_prompt_cannot_be_committed(committed: int) -> None:
    text = Text([1, 2, 3], handle=1, committed=committed)
    with pytest.raises(ValueError, match="all but the last token"):
        Decoder(engine()).step([text])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), min_size=1, max_size=9),
            samplings,
            st.integers(1, 12),
            st.frozensets(st.integers(0, 5), max_size=1),
        ),
        min_size=1,
        max_size=4,
    ),
    planners,
    st.integers(1, 6),
    st.booleans(),
)
def test_several_texts_at_once_equal_each_alone(
    wanted: list[tuple[list[int], SamplingParameters, int, frozenset[int]]],
    planner: Planner,
    rows: int,
    looks_up: bool,
) -> None:
    def texts() -> list[Text]:
        return [Text(prompt, sampling, most, stops) for prompt, sampling, most, stops in wanted]

    base = engine()
    together = texts()
    known = [[*prompt, *plain(prompt, sampling, 12)] for prompt, sampling, _, _ in wanted]
    drafter, lookup = KnowingDrafter(known, VOCABULARY, right=0.7), LookupDrafter() if looks_up else None
    decoded(Decoder(base, drafter, planner, prefill_rows=rows, lookup=lookup), *together)
    for one, alone in zip(together, texts(), strict=True):
        decoded(Decoder(engine()), alone)
        assert one.tokens == alone.tokens
        assert one.finish_reason == alone.finish_reason
        assert one.handle is not None
        assert base.texts[one.handle] == [*one.prompt, *one.tokens][: one.committed]
        assert one.statistics.tokens == len(one.tokens) - 1


def test_choices_of_one_seed_differ_and_are_each_their_own() -> None:
    texts = [Text([1], PLAIN, max_tokens=12, choice=choice) for choice in range(3)]
    together = decoded(Decoder(engine(), RandomDrafter(3, 3, VOCABULARY, 0)), *texts)
    assert len({tuple(tokens) for tokens in together}) == 3
    assert decoded(Decoder(engine()), Text([1], PLAIN, max_tokens=12, choice=2)) == together[2:]


@pytest.mark.parametrize("planner", [BestFirstPlanner(20), StaticPlanner(CHOICES)])
@pytest.mark.parametrize("context_length", range(4, 14))
def test_no_row_stands_beyond_the_context(context_length: int, planner: Planner) -> None:
    """The toy engine checks the positions."""
    prompt, base = [1, 2, 3], engine(context_length)
    text = Text(prompt, PLAIN, max_tokens=100)
    decoded(Decoder(base, knowing(prompt, plain(prompt)), planner), text)
    assert text.tokens == plain(prompt)[: context_length - 3]
    assert text.finish_reason == "length"


@pytest.mark.parametrize(("prompt", "max_tokens"), [([], 5), ([1] * 8, 5), ([1] * 9, 5), ([1], 0)])
def test_nothing_to_read_or_no_room_to_write_is_an_error(prompt: list[int], max_tokens: int) -> None:
    base = engine(context_length=8)
    with pytest.raises(ValueError, match="at least one of each, at most 8 together"):
        Decoder(base).step([Text(prompt, max_tokens=max_tokens)])
    assert base.texts == {}


def test_trees_are_not_deeper_than_what_may_still_be_written() -> None:
    prompt, base = [1, 2], engine()
    text = Text(prompt, PLAIN, max_tokens=4)
    drafter = RandomDrafter(6, 2, VOCABULARY, 3)
    steps: list[Step] = list(Decoder(base, drafter, BestFirstPlanner(40)).decode([text]))
    written = 0
    for step in steps:
        if step.tree is not None:
            assert step.tree.depths.max() == min(6, 4 - written - 1)
        written += len(step.tokens)


def test_statistics_count_what_was_run_and_emitted() -> None:
    prompt, base = [1, 2, 3], engine()
    text = Text(prompt, PENALISED, max_tokens=25)
    drafter = knowing(prompt, plain(prompt, PENALISED), right=0.5)
    steps = list(Decoder(base, drafter, BestFirstPlanner(7), prefill_rows=2).decode([text]))
    statistics = text.statistics
    trees = [step.tree for step in steps if step.tree is not None]
    assert statistics.prompt_tokens == 3
    assert statistics.steps == len(trees)
    assert statistics.nodes == sum(len(tree) for tree in trees) == sum(base.sizes[2:])
    depths = np.concatenate([tree.depths for tree in trees])
    assert statistics.drafted == [int((depths == depth).sum()) for depth in range(1, depths.max() + 1)]
    assert statistics.tokens == 24
    assert statistics.acceleration_rate == 24 / len(trees)
    guessed = [step.guessed for step in steps]
    assert statistics.accepted == [sum(count > head for count in guessed) for head in range(max(guessed))]
    assert 0 < statistics.draft_seconds + statistics.verify_seconds <= statistics.decode_seconds


class CountingEngine(ToyEngine):
    """Counts the rows of which logits leave the engine."""

    looked = 0

    def logits_after(self, text: Sequence[int]) -> np.ndarray:
        self.looked += 1
        return super().logits_after(text)


def test_sampling_looks_only_at_rows_of_the_walk() -> None:
    base = CountingEngine(random_table(VOCABULARY, seed=1))
    text = Text([1, 2], PLAIN, max_tokens=20)
    decoded(Decoder(base, RandomDrafter(3, 4, VOCABULARY, 0), BestFirstPlanner(20)), text)
    assert base.looked == 20


def test_typical_acceptance_commits_what_it_emits() -> None:
    base = engine()
    texts = [Text([1, 2], PLAIN, max_tokens=20, choice=choice) for choice in range(4)]
    drafter = RandomDrafter(3, 4, VOCABULARY, 0)
    decoded(Decoder(base, drafter, BestFirstPlanner(20), TypicalAcceptance()), *texts)
    for text in texts:
        assert text.handle is not None
        assert base.texts[text.handle] == [*text.prompt, *text.tokens[:-1]]
        assert text.statistics.acceleration_rate > 1


class Attentive(BestFirstPlanner):
    """Asks for guesses every other time, and remembers what it was asked and told."""

    def __init__(self) -> None:
        super().__init__(rows=6)
        self.counts: list[int] = []
        self.contexts: list[list[int]] = []
        self.told: list[Outcome] = []

    def drafts(self, count: int) -> bool:
        self.counts.append(count)
        return len(self.counts) % 2 == 0

    def grow(self, roots, proposals, depths, contexts):  # type: ignore[no-untyped-def]
        self.contexts.append(list(contexts))
        return super().grow(roots, proposals, depths, contexts)

    def observe(self, outcome: Outcome) -> None:
        self.told.append(outcome)


def test_a_planner_is_asked_before_and_told_after_each_step() -> None:
    planner, drafter = Attentive(), RandomDrafter(3, 3, VOCABULARY, 0)
    texts = [Text([1, 2], PLAIN, max_tokens=15), Text([1, 2, 3, 4, 5], PLAIN, max_tokens=9)]
    decoder = Decoder(engine(), drafter, planner, prefill_rows=3)
    while running := [text for text in texts if text.finish_reason is None]:
        begun = [text for text in running if text.tokens]
        before = [text.committed for text in begun]
        asked = len(planner.counts)
        steps = [step for step in decoder.step(running) if step.tree is not None]
        if not begun:
            assert planner.told == []
            continue
        outcome = planner.told[-1]
        assert planner.contexts[-1] == list(outcome.contexts) == before
        assert list(outcome.rows) == [len(step.tree) for step in steps if step.tree is not None]
        assert list(outcome.emitted) == [len(step.tokens) for step in steps]
        assert planner.counts[asked:] in ([len(begun)], [])
        assert outcome.drafted == (len(planner.counts) > asked and len(planner.counts) % 2 == 0)
        assert outcome.drafted == (max(outcome.rows) > 1)
    assert {outcome.drafted for outcome in planner.told} == {True, False}


def test_the_last_token_needs_no_guesses() -> None:
    planner = Attentive()
    decoded(Decoder(engine(), RandomDrafter(3, 3, VOCABULARY, 0), planner), Text([1], PLAIN, max_tokens=2))
    assert planner.counts == []
    assert [outcome.drafted for outcome in planner.told] == [False]


def periodic() -> ToyEngine:
    """After 1 comes 2, after 2 comes 3, after 3 comes 1, whatever was before."""
    table = np.zeros((VOCABULARY, VOCABULARY, VOCABULARY))
    for last, following in ((1, 2), (2, 3), (3, 1)):
        table[:, last, following] = 9.0
    return ToyEngine(table)


def test_lookup_follows_a_text_that_repeats_itself_and_is_counted_apart() -> None:
    text = Text([1, 2, 3, 1], max_tokens=40)
    decoder = Decoder(periodic(), planner=BestFirstPlanner(6), lookup=LookupDrafter())
    steps = [step for step in decoder.decode([text]) if step.tree is not None]
    assert text.tokens == ([2, 3, 1] * 14)[:40]
    assert [step.sources for step in steps[1:-1]] == [[LOOKUP] * 5 + [0]] * (len(steps) - 2)
    statistics = text.statistics
    assert statistics.acceleration_rate > 5
    assert (statistics.drafted, statistics.accepted) == ([], [])
    assert statistics.looked_up == statistics.nodes - statistics.steps
    assert statistics.looked_up_accepted == sum(step.sources.count(LOOKUP) for step in steps) > 30


def test_lookup_goes_on_where_the_planner_does_not_ask_the_heads() -> None:
    planner = Attentive()
    drafter = knowing([1, 2, 3, 1], [2, 3, 1] * 20)
    texts = [Text([1, 2, 3, 1], max_tokens=40), Text([2, 3, 1, 2], max_tokens=30)]
    decoder = Decoder(periodic(), drafter, planner, lookup=LookupDrafter())
    for _ in decoder.decode(texts):
        pass
    unasked = [outcome for outcome in planner.told if not outcome.drafted]
    assert len(drafter.seen) < sum(len(outcome.rows) for outcome in planner.told)
    assert max(outcome.looked_up_tokens for outcome in unasked) > 5
    for outcome in planner.told:
        assert outcome.looked_up_rows <= sum(outcome.rows) - len(outcome.rows)
        assert outcome.looked_up_tokens <= sum(outcome.emitted)
    told = sum(outcome.looked_up_rows for outcome in planner.told)
    assert told == sum(text.statistics.looked_up for text in texts)


def test_an_end_inside_of_what_was_looked_up_trims_exactly() -> None:
    base, text = periodic(), Text([1, 2, 3, 1], max_tokens=50, halt=None, stop_ids=frozenset([3]))
    decoded(Decoder(base, planner=BestFirstPlanner(9), lookup=LookupDrafter()), text)
    assert text.tokens == [2, 3]
    assert text.handle is not None and base.texts[text.handle] == [1, 2, 3, 1, 2]


def test_a_text_may_have_trees_of_its_own_size_or_none() -> None:
    prompts = [[1, 2], [1, 2, 3], [2, 4]]
    texts = [
        Text(prompt, PLAIN, max_tokens=20, rows=rows)
        for prompt, rows in zip(prompts, [None, 1, 4], strict=True)
    ]
    planner = Attentive()
    sizes: dict[int, set[int]] = {id(text): set() for text in texts}
    for step in Decoder(engine(), RandomDrafter(3, 3, VOCABULARY, 0), planner).decode(texts):
        if step.tree is not None:
            sizes[id(step.sequence)].add(len(step.tree))
    assert [max(sizes[id(text)]) for text in texts] == [6, 1, 4]
    # Guesses of a given size are there whatever the planner says, but for the last token.
    assert sizes[id(texts[2])] <= {1, 4} and texts[2].statistics.nodes > 3 * texts[2].statistics.steps
    # The planner knows of texts without guesses, and nothing of trees that were not its own.
    assert max(len(outcome.rows) for outcome in planner.told) == 2
    assert [text.tokens for text in texts] == [plain(prompt)[:20] for prompt in prompts]


def test_texts_without_guesses_teach_a_planner_nothing() -> None:
    planner = Attentive()
    decoded(Decoder(engine(), None, planner), Text([1, 2], PLAIN, max_tokens=5, rows=1))
    assert planner.told == []
