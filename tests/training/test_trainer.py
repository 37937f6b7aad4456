from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medusa_decoding.heads import HeadsConfig, MedusaHeads
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.data import Positions
from medusa_decoding.training.hidden import SharedWeights
from medusa_decoding.training.loss import IGNORED, OUTSIDE
from medusa_decoding.training.objective import Objective
from medusa_decoding.training.trainer import Trainer

HIDDEN, VOCABULARY, HEADS = 4, 7, 3


def make_trainer(out: Path, positions: Positions, **fields: object) -> Trainer:
    torch.manual_seed(0)
    heads = MedusaHeads(
        HeadsConfig(num_heads=HEADS, num_layers=1, hidden_size=HIDDEN, vocabulary_size=VOCABULARY)
    )
    weights = torch.randn(VOCABULARY, HIDDEN)
    heads.bind(weights)
    config = TrainingConfig.of(model="m", data="d", out=out, condition="none", num_heads=HEADS, **fields)
    objective = Objective(config, heads, SharedWeights(weights, None, weights), torch.float32)
    nothing = Positions(positions.hidden[:0], positions.roots[:0], positions.labels[:0])
    return Trainer(config, heads, objective, positions, nothing)


@pytest.mark.parametrize("loss", ["ce", "kl"])
def test_every_label_weighs_the_same_whatever_step_it_falls_into(tmp_path: Path, loss: str) -> None:
    """Head 3 has a label in one row of eight. While nothing is learnt, the mean over an epoch's steps is the
    mean over the labels, which it would not be if steps divided by their own counts.
    """
    torch.manual_seed(1)
    labels = torch.randint(VOCABULARY, (128, HEADS))
    labels[torch.arange(128) % 8 != 0, 2] = IGNORED
    labels[::5, 1] = OUTSIDE
    positions = Positions(torch.randn(128, HIDDEN), torch.zeros(128, dtype=torch.int64), labels)
    trainer = make_trainer(tmp_path, positions, loss=loss, epochs=1, batch_tokens=16, learning_rate=1e-30)
    losses = [trainer.advance() for _ in range(trainer.steps)]
    assert len(losses) == 8
    expected = trainer.objective.weighted(trainer.objective.mean_losses(positions))
    assert sum(losses) / 8 == pytest.approx(expected, rel=1e-5)


def test_the_rate_rises_and_then_falls_along_a_cosine(tmp_path: Path) -> None:
    positions = Positions(
        torch.randn(100, HIDDEN), torch.zeros(100, dtype=torch.int64), torch.ones(100, HEADS).long()
    )
    trainer = make_trainer(tmp_path, positions, epochs=1, batch_tokens=1, learning_rate=2.0, warmup=0.2)
    rates = [trainer.learning_rate(step) for step in range(100)]
    assert rates[:20] == pytest.approx([0.1 * step for step in range(1, 21)])
    assert rates[59] == pytest.approx(1.0)
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)
