"""How many tokens' keys and values may be held at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medusa_decoding.decoding import Engine

SHARE = 0.5
"""Of the memory that is free, for keys and values, where nobody says how much."""


class KvMemory:
    """Room for keys and values of sequences, counted by the engine for their lengths.

    Every sequence is counted with the length that it may reach, and as if it shared nothing; so what is taken
    on always fits. gigabytes: by default half of what is free now.
    """

    def __init__(self, engine: Engine, gigabytes: float | None = None) -> None:
        self._bytes_of: Callable[[Sequence[int]], int] = getattr(engine, "kv_bytes", sum)
        free = _free_bytes(engine)
        self.limit = gigabytes * 1e9 if gigabytes is not None else SHARE * free if free else float("inf")

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether sequences of these lengths may be held together."""
        return self._bytes_of(lengths) <= self.limit

    def longest(self, most: int) -> int:
        """The longest single sequence that fits, at most `most`."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits([middle]) else (low, middle - 1)
        return low


def _free_bytes(engine: Any) -> int | None:
    """Memory that is free where the engine keeps its keys and values; None where nobody says."""
    device = getattr(engine, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = (line.split() for line in meminfo.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"), None)
