"""From the options of a verb to a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medusa_decoding.cli.terminal import busy
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.generation import Medusa


def load_medusa(
    model: str,
    *,
    heads: str | None = None,
    no_heads: bool = False,
    tree: str = "auto",
    acceptance: Literal["exact", "typical"] = "exact",
    device: str = "auto",
    dtype: str = "auto",
    in_4bit: bool = False,
    in_8bit: bool = False,
    adapter: str | None = None,
    progress: bool = True,
) -> Medusa:
    """`medusa_decoding.load` with the command line's options. Raises UserError where two contradict each
    other.
    """
    if heads is not None and no_heads:
        raise UserError("--heads and --no-heads contradict each other: leave one out")
    if in_4bit and in_8bit:
        raise UserError("--load-in-4bit and --load-in-8bit contradict each other: leave one out")
    from medusa_decoding.models import resolve

    # An alias is downloaded first, under its own progress bar.
    resolve(model, progress=progress)
    with busy(f"loading {model} ..."):
        from medusa_decoding.generation import load

        return load(
            model,
            heads=None if no_heads else heads or "auto",
            tree=tree,
            acceptance=acceptance,
            device=device,
            dtype=dtype,
            quantization="4bit" if in_4bit else "8bit" if in_8bit else None,
            adapter=adapter,
            progress=progress,
        )


def is_lossless(medusa: Medusa) -> bool:
    """Whether the text is the base model's own."""
    return medusa.heads is None or medusa.acceptance is None or medusa.acceptance.lossless
