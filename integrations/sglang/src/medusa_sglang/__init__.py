"""Medusa heads in SGLang, through its registry of speculative algorithms."""

from __future__ import annotations

NAME = "MEDUSA"


def register() -> None:
    """Make `--speculative-algorithm MEDUSA` known to SGLang; what its plugin loader calls in each process."""
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from medusa_sglang.algorithm import MedusaAlgorithm, worker_class

    SpeculativeAlgorithm.register(NAME, spec_class=MedusaAlgorithm)(worker_class)
