"""Training: heads learn to guess what a base model writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medusa_decoding.training.config import TrainingConfig, load_config
    from medusa_decoding.training.recipe import Recipe, follow, load_recipe
    from medusa_decoding.training.report import TrainingReport
    from medusa_decoding.training.run import train

__all__ = ["Recipe", "TrainingConfig", "TrainingReport", "follow", "load_config", "load_recipe", "train"]

_HOMES = {
    "Recipe": "recipe",
    "TrainingConfig": "config",
    "TrainingReport": "report",
    "follow": "recipe",
    "load_config": "config",
    "load_recipe": "recipe",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so nothing is imported before it is named.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
