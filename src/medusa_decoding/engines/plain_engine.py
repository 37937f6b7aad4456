"""Plain decoding for models that cannot verify trees: the model's own cache, forward only.

Recurrent layers, attention by place in the cache: their state cannot be forked or stepped back, but it can go
forward.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from transformers import DynamicCache

from medusa_decoding.decoding.protocols import Rows
from medusa_decoding.decoding.tree import FloatArray, IntArray
from medusa_decoding.engines.cache import position_bytes
from medusa_decoding.engines.support import logit_tolerance
from medusa_decoding.errors import UserError

Way = Literal["pieces", "rows", "whole"]
"""How a text that goes on is run: all its new tokens in one call, one call per token, or, where the model's
own cache gives other logits than none, the whole text again.
"""

TRIAL_TOKENS = 9
TRIAL_PROMPT = 5


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


@dataclass
class _Text:
    """tokens: all that were given. run: how many of them are in the state."""

    tokens: list[int] = field(default_factory=list)
    run: int = 0
    state: dict[str, Any] = field(default_factory=dict)


class PlainEngine:
    """Any causal LM of transformers, autoregressively.

    Rows must be chains; each is kept as soon as it is run. A prompt in pieces is run when its end has come.
    """

    verifies_trees = False

    def __init__(self, model: Any, context_length: int | None = None) -> None:
        self.model = model
        config = model.config.get_text_config()
        self.context_length = int(context_length or getattr(config, "max_position_embeddings", 0) or 2**31)
        self.vocabulary_size = int(config.vocab_size)
        self.device: torch.device = model.get_input_embeddings().weight.device
        self._takes = frozenset(inspect.signature(_inner(model).forward).parameters)
        self._texts: dict[int, _Text] = {}
        self._handles = 0
        self.way: Way = self._find_way()
        if self.way == "whole":
            warnings.warn(
                "this model's cache gives other logits than no cache; the whole text is run for each token",
                stacklevel=2,
            )

    def open(self) -> int:
        """Begin a sequence with an empty state."""
        self._handles += 1
        self._texts[self._handles] = _Text()
        return self._handles

    def close(self, sequence: int) -> None:
        """Drop the sequence's state."""
        del self._texts[sequence]

    def kv_bytes(self, lengths: Sequence[int]) -> int:
        """Bytes that sequences of these lengths take at most: as if all layers were attention."""
        dtype = self.model.get_input_embeddings().weight.dtype
        return sum(lengths) * position_bytes(self.model.config.get_text_config(), dtype)

    def truncate(self, sequence: int, length: int) -> None:
        """Only to nothing: a recurrent state cannot be stepped back. Raises UserError otherwise."""
        text = self._texts[sequence]
        if length and length != len(text.tokens):
            raise UserError("this model's state cannot be stepped back; begin the sequence again")
        if not length:
            self._texts[sequence] = _Text()

    @torch.inference_mode()
    def forward(self, rows: Rows) -> PlainVerified:
        """Run each sequence's chain. Raises UserError for a tree."""
        starts = np.flatnonzero(np.diff(rows.sequences, prepend=-1)).tolist()
        spans = list(zip(starts, [*starts[1:], len(rows)], strict=True))
        for first, end in spans:
            if rows.parents[first:end].tolist() != [-1, *range(first, end - 1)]:
                raise UserError("this model cannot verify draft trees; decode plainly with --no-heads")
        logits: dict[int, torch.Tensor] = {}
        for first, end in spans:
            text = self._texts[int(rows.sequences[first])]
            text.tokens += rows.tokens[first:end].tolist()
            if rows.wanted[first:end].any():
                logits[end - 1] = self._advance(text, self.way)
        return PlainVerified(logits)

    def commit(self, accepted: IntArray) -> None:
        """Nothing to do: rows are kept as they are run."""

    def _advance(self, text: _Text, way: Way) -> torch.Tensor:
        """Run what has not been run; (vocabulary,) the last row's logits."""
        if way == "whole":
            return self._call(text.tokens, 0, {"use_cache": False})[0]
        step = 1 if way == "rows" and text.run else len(text.tokens)
        while text.run < len(text.tokens):
            piece = text.tokens[text.run : text.run + step]
            logits, text.state = self._call(piece, text.run, text.state or self._empty_state())
            text.run += len(piece)
        return logits

    def _empty_state(self) -> dict[str, Any]:
        if "past_key_values" not in self._takes:
            return {"use_cache": True}
        cache = DynamicCache(config=self.model.config.get_text_config())
        return {"use_cache": True, "past_key_values": cache}

    def _call(
        self, tokens: list[int], start: int, state: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """One call of the model: (vocabulary,) the last row's logits, and the state to hand to the next."""
        ids = torch.tensor([tokens], device=self.device)
        places = {}
        if "position_ids" in self._takes:
            places = {"position_ids": torch.arange(start, start + len(tokens), device=self.device)[None]}
        output = self.model(input_ids=ids, **places, **state)
        # transformers names a state by its kind; the model takes back what it gave, or changes what it took.
        given = {name: getattr(output, name, None) for name in ("past_key_values", "cache_params", "state")}
        return output.logits[0, -1], state | {
            name: value for name, value in given.items() if value is not None
        }

    @torch.inference_mode()
    def _find_way(self) -> Way:
        """The fastest way whose logits are those of a forward without cache.

        Some architectures take no further piece of several tokens once they have a state, and do not say so.
        """
        tokens = [(7 * place + 3) % self.vocabulary_size for place in range(TRIAL_TOKENS)]
        plain = self._call(tokens, 0, {"use_cache": False})[0].double()
        tolerance = logit_tolerance(self.model.get_input_embeddings().weight.dtype)
        ways: tuple[Way, ...] = ("pieces", "rows")
        for way in ways:
            try:
                error = (self._continued(tokens, way).double() - plain).abs().max()
            except (RuntimeError, ValueError, TypeError, IndexError):
                continue
            if error <= tolerance * (plain.max() - plain.min()):
                return way
        return "whole"

    def _continued(self, tokens: list[int], way: Way) -> torch.Tensor:
        """The logits after `tokens`, run in two parts and another text between, because some models keep the
        state of their last call in themselves.
        """
        text = _Text(tokens[:TRIAL_PROMPT])
        self._advance(text, way)
        self._advance(_Text(tokens[::-1]), way)
        text.tokens = tokens
        return self._advance(text, way)


def _inner(model: Any) -> Any:
    """The model inside of an adapter's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
