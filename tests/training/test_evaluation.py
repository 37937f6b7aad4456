from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medusa_decoding.heads import HeadsConfig, MedusaHeads
from medusa_decoding.training.data import Positions
from medusa_decoding.training.evaluation import evaluate
from medusa_decoding.training.loss import IGNORED, OUTSIDE

VOCABULARY = 6


def plain_heads(num_heads: int) -> MedusaHeads:
    """Heads whose logits are the hidden state itself."""
    config = HeadsConfig(
        num_heads=num_heads, num_layers=1, hidden_size=VOCABULARY, vocabulary_size=VOCABULARY
    )
    heads = MedusaHeads(config)
    heads.bind(torch.eye(VOCABULARY))
    return heads


def test_figures_of_a_hand_made_table() -> None:
    """Each row's logits fall from token 0 to token 5, so a label is the rank of the right token."""
    hidden = torch.arange(VOCABULARY, 0, -1).float().repeat(4, 1)
    labels = torch.tensor([[0, 0], [0, 2], [4, OUTSIDE], [5, IGNORED]])
    found = evaluate(plain_heads(2), Positions(hidden, torch.zeros(4, dtype=torch.int64), labels))
    assert found.top == {1: [0.5, pytest.approx(1 / 3)], 3: [0.5, pytest.approx(2 / 3)],
                         5: [0.75, pytest.approx(2 / 3)]}  # fmt: skip
    # Three rows have two tokens to guess: chains of 2, 1 and 0 right guesses, and the base model's own token.
    assert found.tokens_per_step == pytest.approx(1 + (2 + 1 + 0) / 3)
    log_probabilities = hidden[0].log_softmax(0)
    assert found.losses[0] == pytest.approx(-float(log_probabilities[[0, 0, 4, 5]].mean()))
    assert found.losses[1] == pytest.approx(-float(log_probabilities[[0, 2]].mean()))


def test_a_chain_breaks_at_its_first_wrong_guess() -> None:
    hidden = torch.arange(VOCABULARY, 0, -1).float()[None]
    found = evaluate(
        plain_heads(3), Positions(hidden, torch.zeros(1, dtype=torch.int64), torch.tensor([[0, 1, 0]]))
    )
    assert found.tokens_per_step == 2.0


def test_draft_vocabulary_and_own_projections_are_looked_at() -> None:
    config = HeadsConfig(
        num_heads=2, num_layers=0, hidden_size=VOCABULARY, vocabulary_size=VOCABULARY, projection="own",
        draft_vocabulary_size=2,
    )  # fmt: skip
    heads = MedusaHeads(config, torch.tensor([1, 4]))
    heads.bind(torch.eye(VOCABULARY))
    heads.initialise_projection(torch.eye(VOCABULARY))
    assert heads.projection is not None
    with torch.no_grad():
        heads.projection[1] *= -1
    hidden = functional.one_hot(torch.tensor([1, 4]), VOCABULARY).float()
    found = evaluate(
        heads, Positions(hidden, torch.zeros(2, dtype=torch.int64), torch.tensor([[0, 1], [1, 0]]))
    )
    assert found.top[1] == [1.0, 1.0]
