"""What the base model says along a finished text: one reading, without any tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medusa_decoding.decoding import Engine
from medusa_decoding.decoding.protocols import as_rows
from medusa_decoding.decoding.tree import FloatArray

_ROWS = 512


def logits_after(engine: Engine, tokens: Sequence[int], first: int) -> Iterator[FloatArray]:
    """(vocabulary,) logits after each of `tokens` in its context, from the one at index `first` on.

    The engine is in use until the last has been taken.
    """
    handle = engine.open()
    try:
        for start in range(0, len(tokens), _ROWS):
            piece = np.array(tokens[start : start + _ROWS], np.int64)
            depths = np.arange(len(piece))
            wanted = start + depths >= first
            verified = engine.forward(as_rows(handle, piece, start, depths - 1, depths, wanted))
            # One at a time: all of them would be hundreds of megabytes.
            for row in np.flatnonzero(wanted).tolist():
                yield verified.logits(row)
            engine.commit(depths)
    finally:
        engine.close(handle)
