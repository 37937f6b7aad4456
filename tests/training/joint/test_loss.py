from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medusa_decoding.distill.answers import Answer
from medusa_decoding.heads import HeadsConfig, MedusaHeads
from medusa_decoding.training.joint import loss
from medusa_decoding.training.joint.loss import (
    Projection,
    Targets,
    cross_entropy,
    divergence,
    heads_loss,
)
from medusa_decoding.training.loss import IGNORED, OUTSIDE

ROWS, HIDDEN, VOCABULARY = 13, 5, 11


def random(*shape: int, seed: int, needs_gradient: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values.requires_grad_(needs_gradient)


@pytest.fixture(params=[1, 4, 1000])
def chunk(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_ROWS", request.param)


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.usefixtures("chunk")
def test_divergence_and_its_gradients_equal_the_naive_ones(bias: bool) -> None:
    states, weight = (
        random(ROWS, HIDDEN, seed=1, needs_gradient=True),
        random(VOCABULARY, HIDDEN, seed=2, needs_gradient=True),
    )
    b = random(VOCABULARY, seed=3, needs_gradient=True) if bias else None
    teacher, original = random(ROWS, HIDDEN, seed=4), random(VOCABULARY, HIDDEN, seed=5)
    said = functional.linear(states, weight, b).log_softmax(-1)
    wanted = functional.linear(teacher, original).softmax(-1)
    expected = functional.kl_div(said, wanted, reduction="sum")
    found = divergence(states, Projection(weight, b), teacher, Projection(original))
    same(found, expected)
    inputs = [states, weight] + ([b] if b is not None else [])
    same(torch.autograd.grad(found * 3, inputs), torch.autograd.grad(expected * 3, inputs))


@pytest.mark.usefixtures("chunk")
def test_cross_entropy_and_its_gradients_equal_the_naive_ones() -> None:
    states = random(ROWS, HIDDEN, seed=1, needs_gradient=True)
    weight = random(VOCABULARY, HIDDEN, seed=2, needs_gradient=True)
    tokens = torch.arange(ROWS) % VOCABULARY
    expected = functional.cross_entropy(states @ weight.T, tokens, reduction="sum")
    found = cross_entropy(states, Projection(weight), tokens)
    same(found, expected)
    same(torch.autograd.grad(found, [states, weight]), torch.autograd.grad(expected, [states, weight]))


def test_a_model_that_has_not_changed_has_no_divergence_and_no_gradient() -> None:
    states = random(ROWS, HIDDEN, seed=1, needs_gradient=True)
    lm_head = Projection(random(VOCABULARY, HIDDEN, seed=2))
    found = divergence(states, lm_head, states.detach(), lm_head)
    (gradient,) = torch.autograd.grad(found, states)
    assert float(found.detach()) == 0.0
    assert not bool(gradient.any())


def make_heads(token_map: Tensor | None = None) -> MedusaHeads:
    config = HeadsConfig(
        num_heads=2, num_layers=1, hidden_size=HIDDEN, vocabulary_size=VOCABULARY,
        draft_vocabulary_size=None if token_map is None else len(token_map),
    )  # fmt: skip
    heads = MedusaHeads(config, token_map).double()
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.normal_()
    heads.bind(random(VOCABULARY, HIDDEN, seed=2))
    return heads


def test_targets_are_the_tokens_and_what_follows_each_in_its_own_answer() -> None:
    answers = [Answer("a", [1], [7, 8, 9]), Answer("b", [1], [8, 4])]
    targets = Targets.of(answers, make_heads(torch.tensor([4, 8, 9])))
    assert targets.tokens.tolist() == [7, 8, 9, 8, 4]
    assert targets.labels.tolist() == [
        [1, 2], [2, IGNORED], [IGNORED, IGNORED], [0, IGNORED], [IGNORED, IGNORED]
    ]  # fmt: skip
    assert Targets.of([Answer("c", [1], [4, 7])], make_heads(torch.tensor([4]))).labels[0, 0] == OUTSIDE


def test_heads_loss_reaches_the_hidden_states_and_equal_the_naive_ones() -> None:
    heads = make_heads()
    targets = Targets.of([Answer("a", [1], [7, 8, 9, 3]), Answer("b", [1], [8, 4])], heads)
    states = random(6, HIDDEN, seed=9, needs_gradient=True)
    found, each = heads_loss(heads, states, targets, 0.5, torch.tensor([4, 2]), torch.float64)
    logits = heads.logits(heads.features(states))
    expected = torch.stack(
        [
            functional.cross_entropy(
                logits[:, head], targets.labels[:, head], ignore_index=IGNORED, reduction="sum"
            )
            for head in range(2)
        ]
    )
    expected = expected / torch.tensor([4, 2])
    same(each, expected.detach())
    total = expected @ torch.tensor([0.5, 0.25], dtype=torch.float64)
    same(found, total)
    same(torch.autograd.grad(found, states), torch.autograd.grad(total, states))
