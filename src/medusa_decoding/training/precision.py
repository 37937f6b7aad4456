"""The type in which products are computed; weights, optimiser and sums stay float32."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import Tensor

Choice = Literal["auto", "float32", "bfloat16"]

# Rows and columns of the products that are timed, and by how much bfloat16 has to win: processors without
# instructions for it lose by far, those with some win by far.
_SIZE = 768
_GAIN = 1.5
_REPEATS = 5


def compute_dtype(choice: Choice, device: torch.device) -> torch.dtype:
    """What `choice` means on this device; "auto" is bfloat16 where its products are faster, else float32."""
    if choice != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[choice]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    wide = torch.ones(_SIZE, _SIZE, device=device)
    gain = _seconds(wide) / _seconds(wide.bfloat16())
    return torch.bfloat16 if gain > _GAIN else torch.float32


def _seconds(matrix: Tensor) -> float:
    """The least time of some products, after one to warm up."""
    times = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - started)
    return min(times[1:])
