"""Greedy and seeded sampling: the same ids with and without a drafter, for random trees and row budgets."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import (
    BestFirstPlanner,
    Decoder,
    Planner,
    SamplingParameters,
    Sequence,
    StaticPlanner,
)
from medusa_decoding.decoding.tree import parse_choices
from medusa_decoding.engines import TorchEngine
from tests.decoding.toy import KnowingDrafter, RandomDrafter, decoded
from tests.engines.tiny_models import VOCABULARY, model_of

SIZE = 14
SAMPLINGS = {
    "greedy": SamplingParameters(),
    "greedy-penalties": SamplingParameters(repetition_penalty=1.2, frequency_penalty=0.2),
    "sampled": SamplingParameters(temperature=0.7, top_p=0.9),
    "sampled-penalties": SamplingParameters(
        temperature=0.7, top_p=0.9, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2
    ),
}
paths = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)
planners = st.builds(BestFirstPlanner, st.integers(2, 24)) | st.sets(paths, min_size=1, max_size=8).map(
    lambda found: StaticPlanner(
        parse_choices({path[:size] for path in found for size in range(1, len(path) + 1)})
    )
)


@cache
def engine_of(name: str) -> TorchEngine:
    return TorchEngine(model_of(name))


def texts(parameters: SamplingParameters, seed: int, prompts: list[list[int]]) -> list[Sequence]:
    seeded = SamplingParameters(**{**vars(parameters), "seed": seed})
    return [Sequence(prompt, seeded, SIZE, choice=choice) for choice, prompt in enumerate(prompts)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
@settings(deadline=None, derandomize=True, max_examples=12)
@given(
    planner=planners,
    seed=st.integers(0, 2**64 - 1),
    prompts=st.lists(
        st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=2
    ),
    right=st.sampled_from([0.6, 1.0]),
)
def test_texts_are_the_same_with_and_without_a_drafter(
    name: str, sampling: str, planner: Planner, seed: int, prompts: list[list[int]], right: float
) -> None:
    engine, parameters = engine_of(name), SAMPLINGS[sampling]
    plain = texts(parameters, seed, prompts)
    for text in plain:
        decoded(Decoder(engine), text)
    known = [[*text.prompt, *text.tokens] for text in plain]
    for drafter in (
        KnowingDrafter(known, VOCABULARY, ranks=4, right=right, seed=seed % 1000),
        RandomDrafter(3, 4, VOCABULARY, seed % 1000),
    ):
        drafted = texts(parameters, seed, prompts)
        decoded(Decoder(engine, drafter, planner, prefill_rows=4), *drafted)
        assert [text.tokens for text in drafted] == [text.tokens for text in plain]
        for text in [*drafted]:
            assert text.handle is not None
            engine.close(text.handle)
    for text in plain:
        assert text.handle is not None
        engine.close(text.handle)


def test_guesses_are_accepted_in_these_tests() -> None:
    engine, prompt = engine_of("llama"), [1, 2, 3]
    plain = Sequence(prompt, max_tokens=SIZE)
    decoded(Decoder(engine), plain)
    drafter = KnowingDrafter([[*prompt, *plain.tokens]], VOCABULARY, ranks=4, right=0.6)
    drafted = Sequence(prompt, max_tokens=SIZE)
    decoded(Decoder(engine, drafter, BestFirstPlanner(24)), drafted)
    assert drafted.tokens == plain.tokens
    assert drafted.statistics.acceleration_rate > 1.5
