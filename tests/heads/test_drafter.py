from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.decoding.protocols import Context
from medusa_decoding.heads import MedusaDrafter
from medusa_decoding.heads.drafter import top_tokens

from .conftest import DRAFT, HIDDEN, VOCABULARY, MakeHeads


def contexts(count: int) -> list[Context]:
    hidden = torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(4))
    return [Context([5, i], hidden[i]) for i in range(count)]


@pytest.mark.parametrize("condition", ["none", "root"])
@pytest.mark.parametrize("draft", [None, DRAFT])
@pytest.mark.parametrize("projection", ["shared", "own"])
def test_proposals_are_the_heads_likeliest_tokens(
    make_heads: MakeHeads, condition: str, draft: int | None, projection: str
) -> None:
    heads = make_heads(condition=condition, draft_vocabulary_size=draft, projection=projection)
    proposals = MedusaDrafter(heads, top_k=4).propose(contexts(3))
    assert len(proposals) == 3
    for context, proposal in zip(contexts(3), proposals, strict=True):
        root = heads.embed(torch.tensor([context.root])) if condition == "root" else None
        expected = heads.logits(heads.features(context.hidden[None], root))[0].softmax(-1)
        best = expected.topk(4, dim=-1)
        ids = best.indices if heads.token_map is None else heads.token_map[best.indices]
        np.testing.assert_array_equal(proposal.tokens, ids.numpy())
        np.testing.assert_allclose(proposal.probabilities, best.values.detach().numpy(), rtol=1e-5)
        assert proposal.tokens.dtype == np.int64 and proposal.probabilities.dtype == np.float64


def test_the_root_changes_what_conditioned_heads_propose(make_heads: MakeHeads) -> None:
    hidden = torch.ones(HIDDEN)
    one, two = MedusaDrafter(make_heads(condition="root")).propose(
        [Context([1], hidden), Context([2], hidden)]
    )
    assert not np.array_equal(one.probabilities, two.probabilities)


def test_no_sequences_no_proposals(make_heads: MakeHeads) -> None:
    assert MedusaDrafter(make_heads()).propose([]) == []


def test_there_are_no_more_candidates_than_draft_tokens(make_heads: MakeHeads) -> None:
    (proposal,) = MedusaDrafter(make_heads(draft_vocabulary_size=DRAFT), top_k=50).propose(contexts(1))
    assert proposal.tokens.shape == proposal.probabilities.shape == (3, DRAFT)
    np.testing.assert_allclose(proposal.probabilities.sum(-1), 1, rtol=1e-6)


def test_half_precision_heads_take_full_precision_hidden_states(make_heads: MakeHeads) -> None:
    (proposal,) = MedusaDrafter(make_heads(dtype=torch.bfloat16, condition="root")).propose(contexts(1))
    assert np.isfinite(proposal.probabilities).all()


def test_calibration_is_a_temperature_per_head(make_heads: MakeHeads) -> None:
    plain = MedusaDrafter(make_heads(), top_k=VOCABULARY).propose(contexts(1))[0]
    warm = MedusaDrafter(make_heads(calibration=[1.0, 2.0, 0.5]), top_k=VOCABULARY).propose(contexts(1))[0]
    np.testing.assert_array_equal(plain.tokens, warm.tokens)
    for head, temperature in enumerate([1.0, 2.0, 0.5]):
        flattened = plain.probabilities[head] ** (1 / temperature)
        np.testing.assert_allclose(warm.probabilities[head], flattened / flattened.sum(), rtol=1e-4)


@given(
    scores=st.lists(st.integers(-3, 3), min_size=12, max_size=12),
    count=st.integers(1, 12),
    seed=st.none() | st.integers(0, 99),
)
def test_ties_go_to_the_lowest_target_id(scores: list[int], count: int, seed: int | None) -> None:
    token_map = None
    if seed is not None:
        token_map = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[:12]
    ids = list(range(12)) if token_map is None else token_map.tolist()
    tokens, probabilities = top_tokens(torch.tensor(scores).float().view(1, 1, 12), count, token_map)
    expected = sorted(zip(scores, ids, strict=True), key=lambda pair: (-pair[0], pair[1]))[:count]
    assert tokens[0, 0].tolist() == [token for _, token in expected]
    total = np.exp(np.array(scores, float)).sum()
    np.testing.assert_allclose(probabilities[0, 0], np.exp([s for s, _ in expected]) / total, rtol=1e-5)


def test_identical_logits_everywhere_propose_the_first_ids(make_heads: MakeHeads) -> None:
    heads = make_heads(zero=True)
    assert heads.lm_head is not None
    heads.bind(torch.zeros(VOCABULARY, HIDDEN))
    (proposal,) = MedusaDrafter(heads, top_k=3).propose(contexts(1))
    assert proposal.tokens.tolist() == [[0, 1, 2]] * 3


def test_top_k_is_at_least_one(make_heads: MakeHeads) -> None:
    with pytest.raises(ValueError, match="top_k"):
        MedusaDrafter(make_heads(), top_k=0)
