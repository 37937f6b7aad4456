"""A draft vocabulary without a map: what the rows of the other tokens may and may not change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.errors import UserError
from medusa_decoding.export.vocabulary import with_all_rows, without_draft_vocabulary
from medusa_decoding.heads import HeadsConfig, MedusaHeads
from medusa_decoding.heads.state import state_of

SIZE, VOCABULARY, DRAFT, HEADS = 6, 23, 9, 3


def heads_of(seed: int, projection: str = "shared", shift: float = 0.0) -> MedusaHeads:
    """Bound heads in float64; `shift` moves all rows of a projection one way."""
    generator = torch.Generator().manual_seed(seed)
    config = HeadsConfig(
        num_heads=HEADS,
        num_layers=1,
        hidden_size=SIZE,
        vocabulary_size=VOCABULARY,
        draft_vocabulary_size=DRAFT,
        projection=projection,
    )
    heads = MedusaHeads(config, torch.randperm(VOCABULARY, generator=generator)[:DRAFT]).double()
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + shift)
    heads.bind(torch.randn(VOCABULARY, SIZE, generator=generator, dtype=torch.float64) + shift)
    return heads


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    projection=st.sampled_from(["shared", "own"]),
    shift=st.floats(-5, 5),
    rank=st.integers(1, DRAFT),
)
def test_a_token_outside_is_never_first_and_stays_behind_what_lies_above_the_mean(
    seed: int, projection: str, shift: float, rank: int
) -> None:
    heads = heads_of(seed, projection, shift)
    whole = with_all_rows(heads, "v1")
    assert whole.config.draft_vocabulary_size is None and whole.config.projection == "own"
    features = heads.features(torch.randn(8, SIZE, generator=torch.Generator().manual_seed(seed)).double())
    draft, logits = heads.logits(features), whole.logits(features)
    assert heads.token_map is not None
    torch.testing.assert_close(logits[..., heads.token_map], draft)
    outside = [token for token in range(VOCABULARY) if token not in heads.token_map.tolist()]
    mean = draft.mean(-1, keepdim=True)
    torch.testing.assert_close(logits[..., outside], mean.expand(*draft.shape[:-1], len(outside)))
    best, places = draft.topk(rank, -1)
    # A logit at the mean itself is a tie, and sums round.
    clear = (best > mean + 1e-9).all(-1)
    found = logits.topk(rank, -1).indices
    assert torch.equal(found[clear], heads.token_map[places][clear])


def test_rows_of_zeros_would_come_first_where_all_logits_are_negative() -> None:
    heads = heads_of(1)
    features = heads.features(
        torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1)).double()
    ).detach()
    away = -features[0].mean(0) * torch.linspace(1, 2, VOCABULARY, dtype=torch.float64)[:, None]
    heads.bind(away)
    draft = heads.logits(features)[0, 0]
    assert bool((draft < 0).all()) and heads.token_map is not None
    first = int(with_all_rows(heads, "v1").logits(features)[0, 0].argmax())
    assert first == int(heads.token_map[draft.argmax()])


def test_the_blocks_stay_and_the_given_heads_are_not_touched() -> None:
    heads = heads_of(2)
    before = state_of(heads)
    for made in (with_all_rows(heads, "v1"), without_draft_vocabulary(heads)):
        after = state_of(made)
        names = [name for name in after if "linear" in name]
        assert len(names) == 2 * HEADS
        for name in names:
            torch.testing.assert_close(after[name].double(), before[name], rtol=1e-6, atol=1e-6)
        assert "token_map" not in after
    assert heads.config.draft_vocabulary_size == DRAFT and state_of(heads).keys() == before.keys()


def test_a_bias_of_the_base_models_projection_has_no_place() -> None:
    heads = heads_of(3)
    heads.bind(torch.zeros(VOCABULARY, SIZE), lm_head_bias=torch.ones(VOCABULARY))
    with pytest.raises(UserError, match="has a bias"):
        with_all_rows(heads, "v1")
