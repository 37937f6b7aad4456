"""Plain decoding for models that cannot verify trees: the model's own cache, one row after the other.

Recurrent layers, attention by place in the cache: their state cannot be forked or stepped back, but it can go
forward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medusa_decoding.decoding.protocols import Rows
from medusa_decoding.decoding.tree import FloatArray, IntArray
from medusa_decoding.errors import UserError


class PlainVerified:
    """Logits of each sequence's last row; there is no hidden state to draft from."""

    def __init__(self, logits: dict[int, torch.Tensor]) -> None:
        self._logits = logits

    def argmax(self, rows: IntArray) -> IntArray:
        """(n,) the likeliest next token of each row, ties to the lowest id."""
        return np.array([int(self._logits[row].argmax()) for row in rows.tolist()], np.int64)

    def logits(self, row: int) -> FloatArray:
        """(vocabulary,) the row's logits in float64."""
        values: FloatArray = self._logits[row].double().cpu().numpy()
        return values

    def hidden(self, row: int) -> None:
        """Nothing."""
        return


class PlainEngine:
    """Any causal LM of transformers, autoregressively.

    Rows must be chains; each is kept as soon as it is run.
    """

    def __init__(self, model: Any, context_length: int | None = None) -> None:
        self.model = model
        config = model.config.get_text_config()
        self.context_length = int(context_length or getattr(config, "max_position_embeddings", 0) or 2**31)
        self.vocabulary_size = int(config.vocab_size)
        self.device: torch.device = model.get_input_embeddings().weight.device
        self._states: dict[int, dict[str, Any]] = {}
        self._handles = 0

    def open(self) -> int:
        """Begin a sequence with an empty state."""
        self._handles += 1
        self._states[self._handles] = {}
        return self._handles

    def close(self, sequence: int) -> None:
        """Drop the sequence's state."""
        del self._states[sequence]

    def truncate(self, sequence: int, length: int) -> None:
        """Only to nothing: a recurrent state cannot be stepped back. Raises UserError otherwise."""
        if length:
            raise UserError("this model's state cannot be stepped back; begin the sequence again")
        self._states[sequence] = {}

    @torch.inference_mode()
    def forward(self, rows: Rows) -> PlainVerified:
        """Run each sequence's chain. Raises UserError for a tree."""
        starts = np.flatnonzero(np.diff(rows.sequences, prepend=-1))
        logits: dict[int, torch.Tensor] = {}
        for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            if rows.parents[first:end].tolist() != [-1, *range(first, end - 1)]:
                raise UserError("this model cannot verify draft trees; decode plainly with --no-heads")
            logits[end - 1] = self._advance(int(rows.sequences[first]), rows.tokens[first:end])
        return PlainVerified(logits)

    def commit(self, accepted: IntArray) -> None:
        """Nothing to do: rows are kept as they are run."""

    def _advance(self, handle: int, tokens: IntArray) -> torch.Tensor:
        state = self._states[handle]
        output = self.model(input_ids=torch.from_numpy(tokens[None]).to(self.device), use_cache=True, **state)
        # transformers names a state by its kind; the model takes back what it gave.
        for name in ("past_key_values", "cache_params", "state"):
            if (value := getattr(output, name, None)) is not None:
                state[name] = value
        logits: torch.Tensor = output.logits[0, -1]
        return logits
