from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from medusa_decoding.errors import UserError
from medusa_decoding.heads import HeadsConfig, MedusaHeads

from .conftest import DRAFT, HIDDEN, VOCABULARY, MakeHeads


def residual(x: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    return x + inner * torch.sigmoid(inner)


@pytest.mark.parametrize(
    ("num_layers", "condition"), [(0, "none"), (1, "none"), (3, "none"), (1, "root"), (3, "root")]
)
def test_features_are_those_of_each_head_computed_alone(
    make_heads: MakeHeads, num_layers: int, condition: str
) -> None:
    heads = make_heads(num_layers=num_layers, condition=condition, dtype=torch.float64)
    hidden, root = torch.randn(2, 5, HIDDEN, dtype=torch.float64)
    outputs = heads.features(hidden, root)
    assert outputs.shape == (5, 3, HIDDEN)
    for head in range(3):
        expected = hidden
        for block in heads.blocks:
            inner = expected @ block.weight[head].T + block.bias[head]
            if block.root_weight is not None:
                inner = inner + root @ block.root_weight[head].T
            expected = residual(expected, inner)
        torch.testing.assert_close(outputs[:, head], expected)


def test_only_the_first_block_sees_the_root(make_heads: MakeHeads) -> None:
    blocks = make_heads(num_layers=2, condition="root").blocks
    assert blocks[0].root_weight is not None
    assert blocks[1].root_weight is None


@pytest.mark.parametrize("projection", ["shared", "own"])
@pytest.mark.parametrize("draft", [None, DRAFT])
@pytest.mark.parametrize("condition", ["none", "root"])
def test_at_first_each_head_guesses_as_the_base_model_does(
    make_heads: MakeHeads, lm_head: torch.Tensor, projection: str, draft: int | None, condition: str
) -> None:
    heads = make_heads(
        zero=True, num_layers=2, projection=projection, draft_vocabulary_size=draft, condition=condition
    )
    heads.initialise_projection(lm_head)
    hidden, root = torch.randn(2, 4, HIDDEN)
    expected = functional.linear(hidden, lm_head if draft is None else lm_head[heads.token_map])
    logits = heads.logits(heads.features(hidden, root))
    assert logits.shape == (4, 3, draft or VOCABULARY)
    for head in range(3):
        torch.testing.assert_close(logits[:, head], expected)


def test_own_projections_differ_by_head(make_heads: MakeHeads) -> None:
    heads = make_heads(projection="own")
    features = torch.randn(4, 3, HIDDEN)
    logits = heads.logits(features)
    assert heads.projection is not None
    for head in range(3):
        torch.testing.assert_close(logits[:, head], features[:, head] @ heads.projection[head].T)


def test_blocks_are_distinct_objects(make_heads: MakeHeads) -> None:
    heads = make_heads(num_layers=3)
    before = [block.weight.clone() for block in heads.blocks]
    with torch.no_grad():
        heads.blocks[1].weight.add_(1)
    assert torch.equal(heads.blocks[0].weight, before[0])
    assert torch.equal(heads.blocks[2].weight, before[2])


def test_gradients_reach_every_parameter_and_stay_off_the_base_model(
    make_heads: MakeHeads, lm_head: torch.Tensor, embedding: torch.Tensor
) -> None:
    lm_head.requires_grad_()
    embedding.requires_grad_()
    heads = make_heads(num_layers=2, condition="root", draft_vocabulary_size=DRAFT)
    hidden = torch.randn(4, HIDDEN)
    heads.logits(heads.features(hidden, heads.embed(torch.tensor([1, 2, 3, 4])))).logsumexp(
        -1
    ).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads.parameters())
    assert lm_head.grad is None
    assert embedding.grad is None


def test_the_base_model_is_shared_not_copied_and_not_saved(
    make_heads: MakeHeads, lm_head: torch.Tensor, embedding: torch.Tensor
) -> None:
    heads = make_heads(condition="root")
    assert heads.lm_head is not None and heads.lm_head.data_ptr() == lm_head.data_ptr()
    assert heads.embedding is not None and heads.embedding.data_ptr() == embedding.data_ptr()
    assert set(heads.state_dict()) == {"blocks.0.weight", "blocks.0.bias", "blocks.0.root_weight"}


def test_the_bias_of_the_base_models_lm_head_counts(make_heads: MakeHeads, lm_head: torch.Tensor) -> None:
    heads = make_heads(zero=True, draft_vocabulary_size=DRAFT)
    bias = torch.arange(float(VOCABULARY))
    heads.bind(lm_head, lm_head_bias=bias)
    hidden = torch.randn(2, HIDDEN)
    expected = (hidden @ lm_head.T + bias)[:, heads.token_map]
    torch.testing.assert_close(heads.logits(heads.features(hidden))[:, 2], expected)


def test_copies_and_moves_keep_what_the_heads_say(make_heads: MakeHeads) -> None:
    heads = make_heads(condition="root", draft_vocabulary_size=DRAFT)
    hidden, roots = torch.randn(2, HIDDEN), torch.tensor([3, 7])
    expected = heads.logits(heads.features(hidden, heads.embed(roots)))
    twin = copy.deepcopy(heads)
    assert torch.equal(twin.logits(twin.features(hidden, twin.embed(roots))), expected)
    twin.to(torch.float64)
    assert twin.dtype == torch.float64 and twin.token_map is not None and twin.token_map.dtype == torch.int64
    wide = twin.logits(twin.features(hidden.double(), twin.embed(roots)))
    torch.testing.assert_close(wide.float(), expected)


@pytest.mark.parametrize(("rows", "size"), [(VOCABULARY + 1, HIDDEN), (VOCABULARY, HIDDEN + 1)])
def test_heads_that_do_not_fit_name_both_shapes(make_heads: MakeHeads, rows: int, size: int) -> None:
    heads = make_heads(base_model="some/model")
    with pytest.raises(UserError) as caught:
        heads.bind(torch.zeros(rows, size))
    message = str(caught.value)
    assert f"({VOCABULARY}, {HIDDEN})" in message and f"({rows}, {size})" in message
    assert "some/model" in message and "\n" not in message


def test_root_conditioned_heads_need_an_embedding(make_heads: MakeHeads, lm_head: torch.Tensor) -> None:
    heads = make_heads(condition="root")
    with pytest.raises(UserError, match="embedding"):
        heads.bind(lm_head)
    with pytest.raises(UserError, match="input embedding of shape"):
        heads.bind(lm_head, torch.zeros(VOCABULARY, HIDDEN + 1))


def test_a_vocabulary_that_the_checkpoint_did_not_tell_is_learnt_from_the_base_model(
    lm_head: torch.Tensor,
) -> None:
    heads = MedusaHeads(HeadsConfig(num_heads=1, num_layers=1, hidden_size=HIDDEN, vocabulary_size=None))
    heads.bind(lm_head)
    assert heads.config.vocabulary_size == VOCABULARY


def test_unbound_heads_say_so() -> None:
    heads = MedusaHeads(
        HeadsConfig(num_heads=1, num_layers=1, hidden_size=HIDDEN, vocabulary_size=VOCABULARY)
    )
    with pytest.raises(RuntimeError, match="bind"):
        heads.logits(torch.zeros(1, 1, HIDDEN))
    with pytest.raises(RuntimeError, match="bind"):
        heads.embed(torch.tensor([0]))


@pytest.mark.parametrize(
    "token_map",
    [
        None,
        torch.arange(DRAFT + 1),
        torch.zeros(DRAFT, dtype=torch.int64),
        torch.arange(DRAFT) + VOCABULARY - 1,
    ],
)
def test_a_token_map_holds_distinct_ids_of_the_vocabulary(token_map: torch.Tensor | None) -> None:
    config = HeadsConfig(
        num_heads=1, num_layers=1, hidden_size=HIDDEN, vocabulary_size=VOCABULARY, draft_vocabulary_size=DRAFT
    )
    with pytest.raises(UserError):
        MedusaHeads(config, token_map)
