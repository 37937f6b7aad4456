"""From the options of a verb to a loaded model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from medusa_decoding.cli.options import Loading
from medusa_decoding.cli.terminal import busy
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.generation import Medusa


def load_medusa(model: str, loading: Loading, *, no_heads: bool = False, progress: bool = True) -> Medusa:
    """`medusa_decoding.load` with the command line's options; raises UserError where two contradict."""
    if loading.heads is not None and no_heads:
        raise UserError("--heads and --no-heads contradict each other: leave one out")
    if no_heads and loading.draft == "heads":
        raise UserError("--draft heads and --no-heads contradict each other: leave one out")
    if loading.load_in_4bit and loading.load_in_8bit:
        raise UserError("--load-in-4bit and --load-in-8bit contradict each other: leave one out")
    from medusa_decoding.models import resolve

    # An alias is downloaded first, under its own progress bar.
    resolve(model, progress=progress)
    if loading.heads is not None and progress and sys.stderr.isatty():
        from medusa_decoding.generation.packaged import heads_folder

        # And so are heads on the Hub.
        heads_folder(loading.heads, progress=True)
    with busy(f"loading {model} ..."):
        from medusa_decoding.generation import load

        return load(
            model,
            heads=loading.heads or "auto",
            draft="none" if no_heads and loading.draft == "both" else loading.draft,
            tree=loading.tree,
            acceptance=loading.acceptance,
            engine=loading.engine,
            weights=loading.weights,
            kv_cache=loading.kv_cache,
            threads=loading.threads,
            device=loading.device,
            dtype=loading.dtype,
            quantization=loading.quantization,
            adapter=loading.adapter,
            progress=progress,
        )


def is_lossless(medusa: Medusa) -> bool:
    """Whether the text is the base model's own."""
    return not medusa.drafts or medusa.acceptance is None or medusa.acceptance.lossless
