from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medusa_decoding.heads import HeadsConfig, MedusaHeads
from medusa_decoding.training import loss
from medusa_decoding.training.batches import batch_of
from medusa_decoding.training.data import Positions
from medusa_decoding.training.loss import IGNORED, OUTSIDE, medusa_loss
from medusa_decoding.training.targets import Labels, Teacher

HEADS, HIDDEN, VOCABULARY, SPAN = 3, 5, 11, 4


def make_heads(projection: str) -> tuple[MedusaHeads, Tensor, Tensor]:
    """Heads, and the base model's lm_head and bias."""
    torch.manual_seed(0)
    config = HeadsConfig(
        num_heads=HEADS, num_layers=1, hidden_size=HIDDEN, vocabulary_size=VOCABULARY, projection=projection
    )
    heads = MedusaHeads(config).double()
    lm_head = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float64)
    bias = torch.randn(VOCABULARY, dtype=torch.float64)
    heads.bind(lm_head, None, bias)
    heads.initialise_projection(lm_head)
    return heads, lm_head, bias


def make_positions() -> Positions:
    """Two answers, of 6 and of 5 tokens; one token is outside the draft vocabulary."""
    tokens = torch.arange(11)
    labels = torch.full((11, HEADS), IGNORED)
    for first, end in ((0, 6), (6, 11)):
        for row in range(first, end):
            for head in range(min(HEADS, end - 1 - row)):
                labels[row, head] = row + head + 1
    labels[labels == 3] = OUTSIDE
    return Positions(torch.randn(11, HIDDEN, dtype=torch.float64), tokens, labels)


def naive_kl(
    heads: MedusaHeads, features: Tensor, positions: Positions, rows: Tensor, teacher: Tensor
) -> Tensor:
    """Σ 0.7ᵏ · mean KL, row by row: head k at row i learns the distribution at row i + k."""
    total = features.new_zeros(())
    for head in range(HEADS):
        divergences = [
            functional.kl_div(
                heads.logits(features[place, None])[0, head].log_softmax(-1),
                teacher[row + head + 1].log_softmax(-1),
                reduction="sum",
                log_target=True,
            )
            for place, row in enumerate(rows.tolist())
            if positions.labels[row, head] >= 0
        ]
        total = total + 0.7 ** (head + 1) * torch.stack(divergences).mean()
    return total


@pytest.mark.parametrize("projection", ["shared", "own"])
@pytest.mark.parametrize("chunk", [1, VOCABULARY * SPAN * 2, VOCABULARY * 1000])
def test_kl_and_its_gradients_equal_the_naive_ones(
    monkeypatch: pytest.MonkeyPatch, projection: str, chunk: int
) -> None:
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", chunk)
    heads, lm_head, bias = make_heads(projection)
    own_bias = heads.lm_head_bias
    positions = make_positions()
    teacher = functional.linear(positions.hidden, lm_head, bias)
    # The last span begins where only its first rows have labels, and goes on with the data's first rows.
    starts = torch.tensor([5, 0, 9])
    batch = batch_of(positions, starts, SPAN)
    rows = ((starts[:, None] + torch.arange(SPAN)) % 11).flatten()
    features = torch.randn(len(batch), HEADS, HIDDEN, dtype=torch.float64, requires_grad=True)
    inputs = [features] if heads.projection is None else [features, heads.projection]
    expected = naive_kl(heads, features, positions, rows, teacher)
    expected_gradients = torch.autograd.grad(expected, inputs)
    targets = Teacher(batch.following, HEADS, lm_head, bias)
    found, _ = medusa_loss(heads, features, batch.labels, 0.7, targets=targets)
    assert heads.lm_head_bias is own_bias
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found, inputs), expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_heads_that_say_what_the_teacher_says_have_no_kl() -> None:
    heads, lm_head, bias = make_heads("shared")
    positions = make_positions()
    batch = batch_of(positions, torch.tensor([0]), 6)
    features = batch.following.squeeze(0).unfold(0, HEADS, 1).transpose(1, 2)
    targets = Teacher(batch.following, HEADS, lm_head, bias)
    total, losses = medusa_loss(heads, features, batch.labels, 1.0, targets=targets)
    assert float(total) == pytest.approx(0, abs=1e-12)
    assert losses.shape == (HEADS,)


def test_a_teacher_that_is_sure_teaches_as_the_label_does() -> None:
    heads, _, _ = make_heads("shared")
    labels = torch.tensor([[1, 2, 3], [2, 3, 4]])
    lm_head = torch.eye(VOCABULARY, dtype=torch.float64) * 1000
    states = functional.one_hot(torch.arange(1, 5), VOCABULARY).double()[None]
    features = torch.randn(2, HEADS, HIDDEN, dtype=torch.float64)
    by_teacher, _ = medusa_loss(heads, features, labels, 1.0, targets=Teacher(states, HEADS, lm_head, None))
    by_label, _ = medusa_loss(heads, features, labels, 1.0, targets=Labels(labels))
    torch.testing.assert_close(by_teacher, by_label)
