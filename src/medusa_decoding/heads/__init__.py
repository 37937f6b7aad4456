"""Medusa heads: configuration, inference, training's module, checkpoint formats."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medusa_decoding.heads.config import HeadsConfig, check_fingerprint
    from medusa_decoding.heads.drafter import MedusaDrafter
    from medusa_decoding.heads.module import MedusaHeads
    from medusa_decoding.heads.pretrained import from_pretrained, save_pretrained

__all__ = [
    "HeadsConfig",
    "MedusaDrafter",
    "MedusaHeads",
    "check_fingerprint",
    "from_pretrained",
    "save_pretrained",
]

_HOMES = {
    "HeadsConfig": "config",
    "MedusaDrafter": "drafter",
    "MedusaHeads": "module",
    "check_fingerprint": "config",
    "from_pretrained": "pretrained",
    "save_pretrained": "pretrained",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that importing this package does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
