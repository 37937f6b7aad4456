"""Draft with Medusa heads: candidates for the next K positions, with probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medusa_decoding.decoding.tree import Proposals
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.module import MedusaHeads

if TYPE_CHECKING:
    from medusa_decoding.decoding.protocols import Context


DEFAULT_TOP_K = 10
"""Guesses of a head. A calibration is fitted to lists of this length."""


class MedusaDrafter:
    """Proposes each head's `top_k` likeliest tokens for all sequences in one product.

    Probabilities are the heads' own, over their (draft) vocabulary, each head at its calibrated temperature.
    """

    def __init__(self, heads: MedusaHeads, top_k: int = DEFAULT_TOP_K) -> None:
        """Draft with `heads`, which are bound to the base model that decodes."""
        if top_k < 1:
            raise ValueError("top_k is at least 1")
        self.heads = heads
        self.top_k = top_k

    @property
    def config(self) -> HeadsConfig:
        """What the heads are."""
        return self.heads.config

    @torch.inference_mode()
    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """Return, per context, (K, R) target ids and probabilities, likeliest first, ties to the lowest id.

        R is `top_k`, or the draft vocabulary's size if that is less.
        """
        if not contexts:
            return []
        scores = self._scores(contexts)
        count = min(self.top_k, scores.shape[-1])
        tokens, probabilities = top_tokens(scores, count, self.heads.token_map)
        return [Proposals(tokens[i], probabilities[i]) for i in range(len(contexts))]

    def _scores(self, contexts: Sequence[Context]) -> Tensor:
        """(n, K, T) float32 logits at each head's temperature."""
        heads = self.heads
        hidden = torch.stack([torch.as_tensor(context.hidden) for context in contexts]).to(
            heads.device, heads.dtype
        )
        roots = None
        if heads.config.condition == "root":
            roots = heads.embed(torch.tensor([context.root for context in contexts]))
        scores = heads.logits(heads.features(hidden, roots)).float()
        if heads.config.calibration is not None:
            scores = scores / scores.new_tensor(heads.config.calibration)[:, None]
        return scores


def top_tokens(
    scores: Tensor, count: int, token_map: Tensor | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the `count` likeliest target ids and their softmax probabilities, both (n, K, count).

    `scores`: (n, K, T) float32. Ties, also those at the edge of `count`, go to the lowest target id.
    """
    total = torch.logsumexp(scores, dim=-1, keepdim=True).cpu().numpy().astype(np.float64)
    # One candidate more than asked for shows whether the choice at the edge was arbitrary.
    found = torch.topk(scores, min(count + 1, scores.shape[-1]), dim=-1)
    values = found.values.cpu().numpy().astype(np.float64)
    tokens = _target_ids(found.indices, token_map)
    if values.shape[-1] > count:
        tied = values[..., count] == values[..., count - 1]
        for row in zip(*np.nonzero(tied), strict=True):
            values[row], tokens[row] = _head_of_full_sort(scores[row], values.shape[-1], token_map)
    values, tokens = values[..., :count], tokens[..., :count]
    order = np.lexsort((tokens, -values), axis=-1)
    probabilities = np.exp(np.take_along_axis(values, order, -1) - total)
    return np.take_along_axis(tokens, order, -1), probabilities


def _head_of_full_sort(
    scores: Tensor, count: int, token_map: Tensor | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same for one row (T,) by sorting all of it."""
    values = scores.cpu().numpy().astype(np.float64)
    tokens = _target_ids(torch.arange(len(values), device=scores.device), token_map)
    order = np.lexsort((tokens, -values))[:count]
    return values[order], tokens[order]


def _target_ids(indices: Tensor, token_map: Tensor | None) -> NDArray[np.int64]:
    ids = indices if token_map is None else token_map[indices]
    return ids.cpu().numpy().astype(np.int64)
