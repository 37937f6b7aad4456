from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medusa_decoding.heads import HeadsConfig, MedusaHeads
from medusa_decoding.training import loss
from medusa_decoding.training.loss import IGNORED, OUTSIDE, chunks_of, medusa_loss, projections
from medusa_decoding.training.targets import Labels

HEADS, HIDDEN, VOCABULARY, ROWS = 3, 5, 11, 17


def make_heads(projection: str = "shared", *, bias: bool = False) -> MedusaHeads:
    torch.manual_seed(0)
    config = HeadsConfig(
        num_heads=HEADS, num_layers=1, hidden_size=HIDDEN, vocabulary_size=VOCABULARY, projection=projection
    )
    heads = MedusaHeads(config).double()
    lm_head = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float64)
    heads.bind(lm_head, None, torch.randn(VOCABULARY, dtype=torch.float64) if bias else None)
    heads.initialise_projection(lm_head)
    return heads


def make_labels() -> Tensor:
    labels = torch.randint(VOCABULARY, (ROWS, HEADS), generator=torch.Generator().manual_seed(1))
    labels[3, 1] = labels[4, 2] = labels[5, 0] = OUTSIDE
    labels[-1, 1:] = labels[-2, 2] = IGNORED
    return labels


def naive_loss(
    heads: MedusaHeads, features: Tensor, labels: Tensor, decay: float
) -> tuple[Tensor, list[Tensor]]:
    logits = heads.logits(features)
    losses = [
        functional.cross_entropy(logits[labels[:, head] >= 0, head], labels[labels[:, head] >= 0, head])
        for head in range(HEADS)
    ]
    total: Any = sum(decay ** (head + 1) * one for head, one in enumerate(losses))
    return total, losses


@pytest.mark.parametrize("projection", ["shared", "own"])
@pytest.mark.parametrize("chunk", [VOCABULARY * 2, VOCABULARY * 1000, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_equal_the_naive_ones(
    monkeypatch: pytest.MonkeyPatch, projection: str, chunk: int, bias: bool
) -> None:
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", chunk)
    heads, labels = make_heads(projection, bias=bias), make_labels()
    inputs = [torch.randn(ROWS, HEADS, HIDDEN, dtype=torch.float64, requires_grad=True)]
    inputs += [] if heads.projection is None else [heads.projection]
    expected, expected_losses = naive_loss(heads, inputs[0], labels, 0.7)
    expected_gradients = torch.autograd.grad(expected * 3, inputs)
    found, found_losses = medusa_loss(heads, inputs[0], labels, 0.7, targets=Labels(labels))
    found_gradients = torch.autograd.grad(found * 3, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_losses, torch.stack(expected_losses).detach(), rtol=1e-12, atol=1e-12)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_untrained_heads_guess_what_the_base_model_does() -> None:
    """Zero-initialised blocks: each head's loss is that of the base model's own logits."""
    heads, labels = make_heads(), torch.arange(HEADS)[None].repeat(4, 1)
    hidden = torch.randn(4, HIDDEN, dtype=torch.float64)
    assert heads.lm_head is not None
    expected = [functional.cross_entropy(hidden @ heads.lm_head.T, labels[:, head]) for head in range(HEADS)]
    _, found = medusa_loss(heads, heads.features(hidden), labels, 0.8, targets=Labels(labels))
    torch.testing.assert_close(found, torch.stack(expected))


def test_labels_without_a_draft_id_leave_no_trace() -> None:
    heads = make_heads()
    features = torch.randn(2, HEADS, HIDDEN, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[IGNORED, OUTSIDE, 4], [OUTSIDE, IGNORED, IGNORED]])
    total, losses = medusa_loss(heads, features, labels, 0.5, targets=Labels(labels))
    (gradient,) = torch.autograd.grad(total, features)
    assert losses[:2].tolist() == [0.0, 0.0]
    assert float(total.detach()) == pytest.approx(float(losses[2]) / 8)
    assert bool(gradient[0, 2].any())
    gradient[0, 2] = 0
    assert not bool(gradient.any())


def test_a_hopeless_guess_has_a_finite_loss_and_a_full_gradient() -> None:
    config = HeadsConfig(num_heads=1, num_layers=0, hidden_size=2, vocabulary_size=2)
    heads = MedusaHeads(config)
    heads.bind(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]))
    features = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    labels = torch.tensor([[1]])
    total, _ = medusa_loss(heads, features, labels, 1.0, targets=Labels(labels))
    (gradient,) = torch.autograd.grad(total, features)
    assert bool(total.isfinite()) and float(total.detach()) > 80
    assert gradient.tolist() == [[[1000.0, -1000.0]]]


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    heads, labels = make_heads(), make_labels()
    features = torch.randn(ROWS, HEADS, HIDDEN, dtype=torch.float64)
    whole, _ = medusa_loss(heads, features, labels, 0.7, targets=Labels(labels))
    counts = (labels >= 0).sum(0)
    parts = [
        medusa_loss(heads, features[rows], labels[rows], 0.7, targets=Labels(labels[rows]), counts=counts)[0]
        for rows in (slice(0, 4), slice(4, ROWS))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_products_in_bfloat16_stay_close_and_give_gradients_of_the_heads_own_type() -> None:
    heads, labels = make_heads("own").float(), make_labels()
    features = torch.randn(ROWS, HEADS, HIDDEN, requires_grad=True)
    assert heads.projection is not None
    inputs = [features, heads.projection]
    exact, _ = medusa_loss(heads, features, labels, 0.7, targets=Labels(labels))
    exact_gradients = torch.autograd.grad(exact, inputs)
    weight = projections(heads, torch.bfloat16)
    rough, _ = medusa_loss(heads, features, labels, 0.7, targets=Labels(labels), weight=weight)
    gradients = torch.autograd.grad(rough, inputs)
    assert rough.dtype == torch.float32 and {one.dtype for one in gradients} == {torch.float32}
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)
    for one, other in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.01)


def test_chunks_cover_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 40)
    rows = [row for chunk in chunks_of(10, 11) for row in range(chunk.start, chunk.stop)]
    assert rows == list(range(10))
    assert all(chunk.stop - chunk.start <= 3 for chunk in chunks_of(10, 11))
    assert list(chunks_of(0, 11)) == []
