from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from medusa_decoding.decoding import Decoder, Rows, SamplingParameters, Sequence
from medusa_decoding.engines import PlainEngine, TorchEngine
from medusa_decoding.errors import UserError
from tests.decoding.toy import RandomDrafter, decoded
from tests.engines.stateful_models import STATEFUL, stateful
from tests.engines.tiny_models import build, model_of, plain

PROMPT = [3, 1, 4, 1, 5, 9, 2]
WAYS = {"Mamba": "rows", "Jamba": "rows", "RecurrentGemma": "whole"}


@cache
def engine_of(kind: str) -> PlainEngine:
    return PlainEngine(stateful(kind))


def generated(model: Any, prompt: list[int], size: int) -> list[int]:
    text = model.generate(
        torch.tensor([prompt]), max_new_tokens=size, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    tokens: list[int] = text[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.filterwarnings("ignore:this model's cache")
@pytest.mark.parametrize("kind", STATEFUL)
def test_texts_equal_generate_and_the_forward_without_cache(kind: str) -> None:
    """Two texts at once, prompts in pieces."""
    engine = engine_of(kind)
    assert engine.way == WAYS.get(kind, "pieces")
    texts = [Sequence(PROMPT, max_tokens=7), Sequence(PROMPT[::-1][:4], max_tokens=7)]
    decoded(Decoder(engine, prefill_rows=3), *texts)
    for text in texts:
        assert text.tokens == generated(engine.model, text.prompt, 7)
        logits, _ = plain(engine.model, [*text.prompt, *text.tokens])
        assert text.tokens == logits[len(text.prompt) - 1 : -1].argmax(-1).tolist()


@pytest.mark.filterwarnings("ignore:this model's cache")
@pytest.mark.parametrize(
    "kind", ["Mamba", "Mamba2", "Rwkv", "RecurrentGemma", "Jamba", "Bloom", "Llama4Text"]
)
def test_a_text_goes_on_where_another_ended(kind: str) -> None:
    """A second turn: the state is kept, several tokens follow it."""
    engine = engine_of(kind)
    first = Sequence(PROMPT, max_tokens=4)
    decoded(Decoder(engine), first)
    assert first.handle is not None
    known = [*first.prompt, *first.tokens[:-1]]
    engine.truncate(first.handle, len(known))
    prompt = [*known, 8, 7, 6, 5, 4]
    again = Sequence(prompt, max_tokens=4, handle=first.handle, committed=len(known))
    assert decoded(Decoder(engine, prefill_rows=2), again) == [generated(engine.model, prompt, 4)]
    assert again.statistics.prompt_tokens == 5


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_models_with_keys_and_values_decode_plainly_too(name: str) -> None:
    """Their own caches drop what lies beyond the window, also while a prompt goes in."""
    model = model_of(name)
    engine = PlainEngine(model)
    assert engine.way == "pieces"
    texts = [
        Sequence(PROMPT * 2, SamplingParameters(temperature=0.7, seed=seed), max_tokens=9) for seed in (1, 2)
    ]
    trees = [
        Sequence(PROMPT * 2, SamplingParameters(temperature=0.7, seed=seed), max_tokens=9) for seed in (1, 2)
    ]
    assert decoded(Decoder(engine, prefill_rows=4), *texts) == decoded(Decoder(TorchEngine(model)), *trees)


def test_a_state_cannot_be_stepped_back() -> None:
    engine = engine_of("Mamba")
    text = Sequence(PROMPT, max_tokens=2)
    decoded(Decoder(engine), text)
    assert text.handle is not None
    with pytest.raises(UserError, match="cannot be stepped back"):
        engine.truncate(text.handle, 3)
    engine.truncate(text.handle, 0)
    again = Sequence(PROMPT, max_tokens=2, handle=text.handle)
    assert decoded(Decoder(engine), again) == [text.tokens]


def test_a_closed_text_is_forgotten() -> None:
    engine = engine_of("Mamba")
    handle = engine.open()
    engine.close(handle)
    assert engine.open() != handle
    with pytest.raises(KeyError):
        engine.truncate(handle, 0)


def test_trees_are_refused_before_anything_is_run() -> None:
    engine = engine_of("Mamba")
    first, second = engine.open(), engine.open()
    everything = np.ones(4, np.bool_)
    rows = Rows(
        np.array([first, second, second, second]),
        np.array([1, 1, 2, 3]),
        np.array([0, 0, 1, 1]),
        np.array([-1, -1, 1, 1]),
        everything,
    )
    with pytest.raises(UserError, match="--no-heads"):
        engine.forward(rows)
    assert engine._texts[first].tokens == []
    with pytest.raises(UserError, match="--no-heads"):
        decoded(Decoder(engine, RandomDrafter(2, 2, 37, 0)), Sequence(PROMPT))


def test_a_cache_that_cannot_be_trusted_is_not_used() -> None:
    """RecurrentGemma's layers keep the state of their last call, whichever text that was."""
    with pytest.warns(UserWarning, match="the whole text is run"):
        engine = PlainEngine(stateful("RecurrentGemma"))
    assert engine.way == "whole"


def test_the_context_is_the_models_or_the_callers() -> None:
    model = build("Llama")
    assert PlainEngine(model).context_length == 64
    assert PlainEngine(model, context_length=9).context_length == 9
    assert PlainEngine(model).vocabulary_size == 37
