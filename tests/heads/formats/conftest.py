"""Heads of all kinds, and what a checkpoint of them must reproduce."""

from __future__ import annotations

import numpy as np
import torch

from medusa_decoding.decoding.protocols import Context
from medusa_decoding.decoding.tree import Proposals
from medusa_decoding.heads import MedusaDrafter, MedusaHeads
from medusa_decoding.heads.state import StateDict

from ..conftest import HIDDEN


def same_tensors(found: StateDict, expected: StateDict) -> bool:
    """Whether both hold the same bits under the same names."""
    return set(found) == set(expected) and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        for name in expected
    )


def propose(heads: MedusaHeads) -> Proposals:
    """What the heads propose after one fixed hidden state."""
    hidden = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(5))
    (proposals,) = MedusaDrafter(heads, top_k=5).propose([Context([2, 7], hidden)])
    return proposals


def assert_same_proposals(one: MedusaHeads, other: MedusaHeads, *, exact: bool = True) -> None:
    """Compare them; `exact=False` where a projection was written out and is multiplied in another order."""
    first, second = propose(one), propose(other)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=0 if exact else 1e-5)
