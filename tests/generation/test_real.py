"""The promise on the real model: the same token ids with the packaged heads and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import medusa_decoding
from medusa_decoding.decoding import Sequence, Statistics
from medusa_decoding.generation import GenerationOptions, Medusa

pytestmark = pytest.mark.real

PROMPTS = [
    "Write a short poem about a lighthouse in winter.",
    "Explain to a child why the moon changes its shape.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "A train leaves at 9:40 and arrives at 13:05. How long does the trip take?",
    "Translate into French: the library is closed on Sundays.",
    "List five differences between cats and dogs.",
    "Summarise in one sentence: The committee met on Tuesday. It discussed the budget, postponed the vote on "
    "the new bridge and thanked its outgoing chair, who had served for eleven years.",
    "What are the advantages and disadvantages of working from home?",
]


@pytest.fixture(scope="module")
def medusa(smollm2_path: Path) -> Iterator[Medusa]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield medusa_decoding.load("smollm2", dtype="float32", progress=False)
    torch.set_num_threads(threads)


def write(
    medusa: Medusa, options: GenerationOptions, speculative: bool
) -> tuple[list[list[int]], Statistics]:
    """All prompts side by side, 96 tokens each."""
    sequences = [
        Sequence(medusa.encode(prompt), options.sampling, options.max_tokens, medusa.tokenizer.eos_ids)
        for prompt in PROMPTS
    ]
    for _ in medusa.decoder(speculative).decode(sequences):
        pass
    total = Statistics()
    for sequence in sequences:
        assert sequence.handle is not None
        medusa.engine.close(sequence.handle)
        total.add(sequence.statistics)
    return [sequence.tokens for sequence in sequences], total


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "seed": 11},
        {"temperature": 0.7, "top_p": 0.9, "seed": 12, "repetition_penalty": 1.1, "frequency_penalty": 0.2},
    ],
    ids=["greedy", "sampled", "penalised"],
)
def test_eight_prompts_get_the_same_text_in_fewer_passes(medusa: Medusa, settings: dict[str, float]) -> None:
    options = GenerationOptions.of(None, {"max_tokens": 96, **settings})
    plain, plain_statistics = write(medusa, options, speculative=False)
    fast, fast_statistics = write(medusa, options, speculative=True)
    assert fast == plain
    assert plain_statistics.acceleration_rate == 1
    assert fast_statistics.acceleration_rate > 1.2
    guessed = sum(fast_statistics.accepted) + fast_statistics.looked_up_accepted
    # Each step brings one token of the base model's own, but the last where a guess has ended the text.
    ended_by_guess = guessed - (fast_statistics.tokens - fast_statistics.steps)
    assert 0 <= ended_by_guess <= len(PROMPTS)


def test_a_stop_string_trims_the_text_alike(medusa: Medusa) -> None:
    asked = {"max_tokens": 60, "stop": ["7", "8", "9"]}
    texts = [
        medusa.generate("Count from 1 to 20.", speculative=speculative, **asked)
        for speculative in (False, True)
    ]
    assert texts[0].finish_reason == "stop"
    assert not set(texts[0].text) & {"7", "8", "9"}
    assert (texts[0].text, texts[0].tokens) == (texts[1].text, texts[1].tokens)
    for text in texts:
        assert text.statistics.tokens == len(text.tokens) - 1


def test_pieces_join_to_the_text(medusa: Medusa) -> None:
    stream = medusa.stream("Write the Chinese and the Japanese word for water, with emoji.", max_tokens=40)
    pieces = list(stream)
    assert "".join(piece.text for piece in pieces) == stream.result.text
    assert [token for piece in pieces for token in piece.tokens] == stream.result.tokens


def test_a_conversation_runs_each_token_once_and_remembers(medusa: Medusa) -> None:
    conversation = medusa.conversation()
    for _ in conversation.stream("My name is Ada. Say hello.", max_tokens=20):
        pass
    second = conversation.stream("What is my name?", max_tokens=20)
    for _ in second:
        pass
    conversation.close()
    assert second.result.statistics.cached_tokens > 30
    again = medusa.generate(conversation.messages[:-1], max_tokens=20)
    assert again.tokens == second.result.tokens
