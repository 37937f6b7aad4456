"""Medusa decoding: several tokens per forward pass, the same text.

>>> import medusa_decoding
>>> model = medusa_decoding.load("smollm2")  # doctest: +SKIP
>>> print(model.generate("Why is the sky blue?").text)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.generation import Generation, GenerationOptions, Medusa, load

__version__ = "0.1.0"
__all__ = ["Generation", "GenerationOptions", "Medusa", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # `import medusa_decoding` stays fast: what needs torch is imported when it is first named.
    if name in ("Generation", "GenerationOptions", "Medusa", "load"):
        from medusa_decoding import generation

        return getattr(generation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
