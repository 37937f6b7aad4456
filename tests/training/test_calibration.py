from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from medusa_decoding.decoding import Context
from medusa_decoding.heads import HeadsConfig, MedusaDrafter, MedusaHeads
from medusa_decoding.training.calibration import calibrate, guesses_at, temperature_of, with_calibration
from medusa_decoding.training.data import Positions
from medusa_decoding.training.loss import IGNORED, OUTSIDE

VOCABULARY = 6


def plain_heads(num_heads: int, vocabulary: int = VOCABULARY) -> MedusaHeads:
    """Heads whose logits are the hidden state itself."""
    config = HeadsConfig(
        num_heads=num_heads, num_layers=1, hidden_size=vocabulary, vocabulary_size=vocabulary
    )
    heads = MedusaHeads(config)
    heads.bind(torch.eye(vocabulary))
    return heads


def positions_of(hidden: torch.Tensor, labels: torch.Tensor) -> Positions:
    return Positions(hidden, torch.zeros(len(hidden), dtype=torch.int64), labels)


def drawn(count: int, temperature: float, vocabulary: int = VOCABULARY) -> Positions:
    """Tokens drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, vocabulary, generator=generator) * 3
    labels = torch.multinomial((hidden / temperature).softmax(1), 1, generator=generator)
    return positions_of(hidden, labels)


def test_overconfident_heads_are_made_true() -> None:
    """The list holds the whole vocabulary, so the slope is the inverse of the temperature."""
    (found,) = calibrate(plain_heads(1), drawn(4000, 2.0))
    assert found.slope == pytest.approx(0.5, rel=0.1)
    assert found.confidence[0] > found.accuracy + 0.1
    assert found.confidence[1] == pytest.approx(found.accuracy, abs=0.03)
    assert found.error[0] > 0.1 and found.error[1] < 0.05


def test_tokens_outside_the_draft_vocabulary_count_as_misses() -> None:
    """Every second token is one that the head cannot guess, and it is not told."""
    positions = drawn(4000, 1.0, vocabulary=30)
    positions.labels[::2] = OUTSIDE
    (found,) = calibrate(plain_heads(1, 30), positions)
    assert found.accuracy < 0.4
    assert found.confidence[0] > found.accuracy + 0.2
    # Misses that have nothing to do with the head's own doubts are outside the family of maps: not exact.
    assert found.confidence[1] == pytest.approx(found.accuracy, abs=0.06)
    assert found.error[1] < found.error[0] / 3


def test_later_heads_are_fitted_where_the_earlier_ones_were_right() -> None:
    """Head 2 is right where head 1 was right, and wrong elsewhere."""
    right = torch.arange(400) % VOCABULARY
    hidden = functional.one_hot(right, VOCABULARY).float() * 2
    labels = torch.stack([right, right], 1)
    labels[1::2] = (labels[1::2] + 1) % VOCABULARY
    first, second = calibrate(plain_heads(2), positions_of(hidden, labels))
    assert (first.rows, first.accuracy) == (400, 0.5)
    assert (second.rows, second.accuracy) == (200, 1.0)
    assert first.confidence[1] == pytest.approx(0.5, abs=0.03)
    assert second.confidence[1] > 0.9


def test_a_head_without_positions_keeps_its_probabilities() -> None:
    positions = positions_of(torch.eye(VOCABULARY), torch.full((6, 2), OUTSIDE))
    first, second = calibrate(plain_heads(2), positions)
    assert (first.rows, second.rows) == (6, 0)
    assert (second.slope, second.miss, second.accuracy) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 30])
def test_guesses_are_the_drafters(vocabulary: int) -> None:
    """Also where the vocabulary is shorter than the list."""
    heads, positions = plain_heads(2, vocabulary), drawn(300, 1.0, vocabulary)
    labels = torch.cat([positions.labels, positions.labels.roll(-1, 0)], 1)
    labels[-1, 1] = IGNORED
    found = guesses_at(heads, positions_of(positions.hidden, labels))
    proposals = MedusaDrafter(heads).propose([Context([0], state) for state in positions.hidden])
    for place, one in enumerate(proposals):
        assert found.probabilities[place] == pytest.approx(one.probabilities, rel=1e-5)
        for head in range(2):
            right = one.tokens[head].tolist()
            label = int(labels[place, head])
            expected = -1 if label == IGNORED else right.index(label) if label in right else len(right)
            assert found.ranks[place, head] == expected


def test_a_new_calibration_takes_the_place_of_an_old_one() -> None:
    heads = plain_heads(1)
    config = heads.config.model_copy(update={"calibration": [2.0]})
    found = with_calibration(config, calibrate(heads, drawn(50, 1.0)), 0.7)
    assert found.calibration is None and found.path_calibration is not None
    assert [fit.temperature for fit in found.path_calibration] == [0.7]


def test_the_temperature_of_answers_stands_beside_them(tmp_path: Path) -> None:
    data = tmp_path / "answers.jsonl"
    assert temperature_of([data]) == 0.0
    note = tmp_path / "answers.jsonl.config.json"
    note.write_text(json.dumps({"temperature": 0.7}))
    assert temperature_of([data]) == 0.7
    note.write_text("{")
    assert temperature_of([data]) == 0.0
