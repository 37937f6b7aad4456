from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from medusa_decoding.decoding import BestFirstPlanner, Decoder, SamplingParameters, TypicalAcceptance
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.logprobs import Logprob, logprob
from tests.decoding.toy import RandomDrafter, ToyEngine, decoded, random_table

PROMPT = [1, 2]


def test_of_one_row() -> None:
    logits = np.array([1.0, -3.0, 800.0, 800.0, 2.0])
    expected = log_softmax(logits)
    found = logprob(logits, 1, 3)
    assert found.value == pytest.approx(expected[1])
    assert [token for token, _ in found.top] == [2, 3, 4]
    assert [value for _, value in found.top] == pytest.approx(expected[[2, 3, 4]])
    assert logprob(logits, 2).top == ()
    assert len(logprob(logits, 2, 9).top) == 5


@pytest.mark.parametrize("sampling", [SamplingParameters(), SamplingParameters(temperature=1.2, top_k=3)])
@pytest.mark.parametrize("lossless", [True, False])
def test_each_token_has_the_base_models_own(sampling: SamplingParameters, lossless: bool) -> None:
    base = ToyEngine(random_table(6, seed=1))
    text = Text(PROMPT, sampling, 20, logprobs=2)
    quiet = Text(PROMPT, sampling, 20)
    acceptance = None if lossless else TypicalAcceptance()
    decoder = Decoder(base, RandomDrafter(3, 4, 6, 0), BestFirstPlanner(9), acceptance)
    found: list[Logprob] = []
    for step in decoder.decode([text, quiet]):
        assert len(step.logprobs) == (len(step.tokens) if step.sequence is text else 0)
        found += step.logprobs
    for place, (token, one) in enumerate(zip(text.tokens, found, strict=True)):
        expected = log_softmax(base.logits_after([*PROMPT, *text.tokens[:place]]))
        assert one.value == pytest.approx(expected[token])
        assert one.top[0] == (int(np.argmax(expected)), pytest.approx(expected.max()))
        assert len(one.top) == 2
    if lossless:
        assert text.tokens == quiet.tokens == decoded(Decoder(base), Text(PROMPT, sampling, 20))[0]
