"""Self-distillation: the base model's own answers to prompts, the data that heads learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medusa_decoding.distill.config import DistillConfig
    from medusa_decoding.distill.report import DistillReport
    from medusa_decoding.distill.run import distill

__all__ = ["DistillConfig", "DistillReport", "distill"]

_HOMES = {"DistillConfig": "config", "DistillReport": "report", "distill": "run"}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so nothing is imported before it is named.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
