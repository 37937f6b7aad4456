from __future__ import annotations

import pytest
import torch

from medusa_decoding.training import precision
from medusa_decoding.training.precision import compute_dtype

CPU = torch.device("cpu")


def test_a_named_type_is_taken() -> None:
    assert compute_dtype("float32", CPU) == torch.float32
    assert compute_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"), [(3.0, 1.0, torch.bfloat16), (1.0, 1.0, torch.float32)]
)
def test_auto_takes_what_was_faster(
    monkeypatch: pytest.MonkeyPatch, wide: float, narrow: float, expected: torch.dtype
) -> None:
    def seconds(matrix: torch.Tensor) -> float:
        return wide if matrix.dtype == torch.float32 else narrow

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert compute_dtype("auto", CPU) == expected


def test_both_types_are_measured() -> None:
    assert precision._seconds(torch.ones(8, 8)) > 0
    assert precision._seconds(torch.ones(8, 8, dtype=torch.bfloat16)) > 0
