"""Stands where the n-gram worker has its corpus: proposes the heads' trees instead of matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medusa_decoding.heads import MedusaHeads
from medusa_decoding.heads.drafter import top_tokens
from medusa_sglang.trees import StaticTree


class HeadsCorpus:
    """The interface of SGLang's `NgramCorpus`, as far as its worker uses it.

    heads: bound to the base model. Hidden states are given by `remember`, by a request's id.
    """

    def __init__(self, heads: MedusaHeads, tree: StaticTree) -> None:
        self._heads, self.tree = heads, tree
        self._states: dict[str, Tensor] = {}
        self.tokens: dict[str, NDArray[np.int64]] = {}

    def remember(self, request: str, state: Tensor) -> None:
        """Keep the (D,) hidden state that decided the request's last token."""
        self._states[request] = state

    @torch.inference_mode()
    def batch_get(
        self, req_ids: Sequence[str], batch_tokens: Sequence[Sequence[int]], total_lens: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(requests x n,) tokens and (requests x n x n,) masks, one request after the other.

        batch_tokens: the end of each text, the root last.
        """
        roots = [text[-1] for text in batch_tokens]
        hidden = torch.stack([self._states[request] for request in req_ids]).to(
            self._heads.device, self._heads.dtype
        )
        seen = self._heads.embed(torch.tensor(roots)) if self._heads.config.condition == "root" else None
        scores = self._heads.logits(self._heads.features(hidden, seen)).float()
        guesses, _ = top_tokens(scores, self.tree.ranks, self._heads.token_map)
        trees = [self.tree.tokens(root, own) for root, own in zip(roots, guesses, strict=True)]
        self.tokens = dict(zip(req_ids, trees, strict=True))
        return np.concatenate(trees), np.tile(self.tree.mask.ravel(), len(trees))

    def erase_match_state(self, req_ids: Sequence[str]) -> None:
        """Forget requests that have left the batch."""
        for request in req_ids:
            self._states.pop(request, None)

    def reset(self) -> None:
        """Forget all."""
        self._states.clear()

    def synchronize(self) -> None:
        """Nothing is under way."""

    def batch_put(self, batch_tokens: Any) -> None:
        """Nothing is learnt from the texts."""

    def list_external_corpora(self) -> dict[str, int]:
        """None: heads know no corpora."""
        return {}
