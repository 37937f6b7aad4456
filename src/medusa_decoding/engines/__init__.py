"""Base models that verify rows.

`TorchEngine` runs any Hugging Face causal LM; see `decoding.protocols.Engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medusa_decoding.engines.plain_engine import PlainEngine
    from medusa_decoding.engines.torch_engine import TorchEngine

__all__ = ["PlainEngine", "TorchEngine"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import, so the engines are imported when they are first named.
    if name == "TorchEngine":
        from medusa_decoding.engines.torch_engine import TorchEngine

        return TorchEngine
    if name == "PlainEngine":
        from medusa_decoding.engines.plain_engine import PlainEngine

        return PlainEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
