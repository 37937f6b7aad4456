"""The first heads of a set guess what they guessed among all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medusa_decoding.decoding.protocols import Context
from medusa_decoding.errors import UserError
from medusa_decoding.heads import HeadsConfig, MedusaDrafter
from medusa_decoding.heads.config import CalibrationFit
from medusa_decoding.heads.first import first_heads
from medusa_decoding.heads.state import build_heads, state_of

from .conftest import DRAFT, HIDDEN, MakeHeads

FITS = [
    CalibrationFit(temperature=0.0, slopes=[1.0, 0.8, 0.6], misses=[0.1, 0.2, 0.3]),
    CalibrationFit(temperature=0.7, slopes=[0.9, 0.7, 0.5], misses=[0.4, 0.5, 0.6]),
]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no blocks": {"num_layers": 0},
    "own": {"projection": "own", "num_layers": 2},
    "all that there is": {
        "num_layers": 2,
        "condition": "root",
        "draft_vocabulary_size": DRAFT,
        "calibration": [1.0, 1.25, 1.5],
        "path_calibration": FITS,
    },
}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_heads_guess_what_they_guessed_among_all(
    make_heads: MakeHeads, lm_head: torch.Tensor, embedding: torch.Tensor, variant: str, count: int
) -> None:
    heads = make_heads(**VARIANTS[variant])
    config, state = first_heads(heads.config, state_of(heads), count)
    assert config == HeadsConfig.model_validate(config.model_dump())
    fewer = build_heads(config, state)
    fewer.bind(lm_head, embedding)
    random = torch.Generator().manual_seed(4)
    contexts = [
        Context([3, root], torch.randn(HIDDEN, generator=random), temperature=temperature)
        for root, temperature in ((1, 0.0), (2, 0.7), (5, 0.3))
    ]
    found = config.calibrated(MedusaDrafter(fewer)).propose(contexts)
    expected = heads.config.calibrated(MedusaDrafter(heads)).propose(contexts)
    for one, all_heads in zip(found, expected, strict=True):
        assert one.depth == count
        np.testing.assert_array_equal(one.tokens, all_heads.tokens[:count])
        np.testing.assert_allclose(one.probabilities, all_heads.probabilities[:count], rtol=1e-5)


def test_all_else_stays(make_heads: MakeHeads) -> None:
    heads = make_heads(**VARIANTS["all that there is"], base_model="some/model", base_fingerprint="abc")
    config, state = first_heads(heads.config, whole := state_of(heads), 2)
    kept = {"num_heads": 3, "calibration": heads.config.calibration, "path_calibration": FITS}
    assert config.model_copy(update=kept) == heads.config
    assert config.calibration == [1.0, 1.25]
    assert config.path_calibration is not None
    assert config.path_calibration[1] == CalibrationFit(temperature=0.7, slopes=[0.9, 0.7], misses=[0.4, 0.5])
    assert heads.config.path_calibration == FITS, "the given heads are left as they were"
    assert state.keys() == {name for name in whole if not name.startswith("2.")}
    assert first_heads(heads.config, whole, 3) == (heads.config, whole)


@pytest.mark.parametrize("count", [-1, 0, 4])
def test_other_numbers_are_refused(make_heads: MakeHeads, count: int) -> None:
    heads = make_heads()
    with pytest.raises(UserError, match=r"there are 3 heads.*1 to 3"):
        first_heads(heads.config, state_of(heads), count)
