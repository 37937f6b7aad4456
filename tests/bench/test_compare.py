from __future__ import annotations

import pytest
import torch

from medusa_decoding.bench.compare import common_length, first_difference, next_token_probabilities
from medusa_decoding.generation import Medusa


def test_common_length_counts_equal_tokens_at_the_beginning() -> None:
    assert common_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_length([1, 2], [1, 2, 3]) == 2
    assert common_length([], [1]) == 0


def test_same_texts_have_no_difference(tiny_medusa: Medusa) -> None:
    assert first_difference(tiny_medusa.engine, [5, 6], [7, 8], [7, 8]) is None


def test_a_difference_tells_place_tokens_and_how_likely_they_were(tiny_medusa: Medusa) -> None:
    found = first_difference(tiny_medusa.engine, [5, 6], [7, 8, 9], [7, 10])
    assert found is not None
    model = tiny_medusa.engine.model  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6, 7]])).logits[0, -1].double().softmax(-1)
    assert (found.token_index, found.tokens) == (1, (8, 10))
    assert found.probabilities == pytest.approx((expected[8].item(), expected[10].item()))
    assert found.gap == pytest.approx(abs(expected[8].item() - expected[10].item()))


def test_a_text_that_ended_has_no_token_there(tiny_medusa: Medusa) -> None:
    found = first_difference(tiny_medusa.engine, [5], [7], [7, 10])
    assert found is not None
    assert (found.tokens, found.probabilities[0], found.gap) == ((None, 10), None, None)


def test_probabilities_of_long_texts_do_not_depend_on_the_pieces(
    tiny_medusa: Medusa, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = list(range(40))
    whole = next_token_probabilities(tiny_medusa.engine, tokens)
    monkeypatch.setattr("medusa_decoding.bench.reading._ROWS", 16)
    assert next_token_probabilities(tiny_medusa.engine, tokens) == pytest.approx(whole)
    assert whole.sum() == pytest.approx(1)
