"""Base models: aliases, GGUF files, local folders and Hub ids, each with its tokenizer.

Names are imported when they are first used, so that `import medusa_decoding.models` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medusa_decoding.models.aliases import ALIASES, Alias
from medusa_decoding.models.source import Source, resolve

if TYPE_CHECKING:
    from medusa_decoding.models.download import pull
    from medusa_decoding.models.loader import BaseModel, load_base_model
    from medusa_decoding.models.tokenizer import Tokenizer, TokenStream
    from medusa_decoding.models.tokenizer_source import load_tokenizer

__all__ = [
    "ALIASES",
    "Alias",
    "BaseModel",
    "Source",
    "TokenStream",
    "Tokenizer",
    "load_base_model",
    "load_tokenizer",
    "pull",
    "resolve",
]

_MODULES = {
    "BaseModel": "loader",
    "TokenStream": "tokenizer",
    "Tokenizer": "tokenizer",
    "load_base_model": "loader",
    "load_tokenizer": "tokenizer_source",
    "pull": "download",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
