from __future__ import annotations

import numpy as np
import pytest

from medusa_decoding import load
from medusa_decoding.decoding import SamplingParameters
from medusa_decoding.generation import Medusa
from medusa_decoding.training.written_texts import states_of, write_texts
from tests.tiny import tiny_llama

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]


@pytest.fixture(scope="module")
def medusa(tmp_path_factory: pytest.TempPathFactory) -> Medusa:
    return load(str(tiny_llama(tmp_path_factory.mktemp("model"))), heads=None, progress=False)


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_texts_are_the_models_own_with_the_states_that_decided_them(
    medusa: Medusa, temperature: float, batch: int
) -> None:
    sampling = SamplingParameters(temperature=temperature, seed=3)
    written = list(write_texts(medusa, PROMPTS, sampling, 12, batch))
    expected = medusa.generate(PROMPTS[0], max_tokens=12, temperature=temperature, seed=3)
    assert written[0][0] == expected.tokens
    for prompt, (tokens, states) in zip(PROMPTS, written, strict=True):
        assert len(states) == len(tokens)
        for mine, other in zip(states_of(medusa.engine, prompt, tokens), states, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_a_long_text_goes_in_pieces(medusa: Medusa, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = states_of(medusa.engine, list(range(9)), list(range(20)))
    monkeypatch.setattr("medusa_decoding.training.written_texts.PREFILL_ROWS", 4)
    np.testing.assert_array_equal(states_of(medusa.engine, list(range(9)), list(range(20))), whole)


def test_a_prompt_that_fills_the_context_gets_what_is_left(medusa: Medusa) -> None:
    prompt = [1] * (medusa.context_length - 3)
    ((tokens, states),) = write_texts(medusa, [prompt], SamplingParameters(), 12, 4)
    assert len(tokens) == len(states) <= 3


def test_sequences_are_closed_when_reading_fails(medusa: Medusa, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = list[int](), list[int]()
    engine, give, take = medusa.engine, medusa.engine.open, medusa.engine.close
    monkeypatch.setattr(engine, "open", lambda: opened.append(give()) or opened[-1])
    monkeypatch.setattr(engine, "close", lambda handle: closed.append(handle) or take(handle))
    with pytest.raises(ValueError, match="tokens"):
        list(write_texts(medusa, [[1], []], SamplingParameters(), 5, 2))
    list(write_texts(medusa, PROMPTS, SamplingParameters(), 5, 2))
    assert opened and sorted(opened) == sorted(closed)
