"""From a prompt to text: joins a base model, its engine and its heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medusa_decoding.generation.conversation import Conversation
    from medusa_decoding.generation.loading import load
    from medusa_decoding.generation.medusa import Generation, Medusa, Piece, Stream
    from medusa_decoding.generation.options import GenerationOptions

__all__ = ["Conversation", "Generation", "GenerationOptions", "Medusa", "Piece", "Stream", "load"]

_HOMES = {
    "Conversation": "conversation",
    "Generation": "medusa",
    "GenerationOptions": "options",
    "Medusa": "medusa",
    "Piece": "medusa",
    "Stream": "medusa",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so nothing is imported before it is named.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
