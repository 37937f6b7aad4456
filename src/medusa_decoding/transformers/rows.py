"""A padded batch as sequences of the loop, and back."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch

from medusa_decoding.decoding import Sequence
from medusa_decoding.decoding.tree import BoolArray
from medusa_decoding.errors import UserError
from medusa_decoding.transformers.settings import Settings


def sequences_of(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    settings: Settings,
    context_length: int,
    vocabulary_size: int,
) -> list[Sequence]:
    """One sequence for each row of (rows, width) `input_ids`, without its padding.

    The row's number is the sequence's choice, so that several texts of one prompt differ. Raises UserError
    for padding that is not on the left, positions of the user's own, and prompts longer than the context.
    """
    shown = _shown(input_ids, attention_mask)
    _check_positions(shown, position_ids)
    longest = int(shown.sum(-1).max())
    if longest >= context_length:
        raise UserError(
            f"the prompt has {longest} tokens, the model's context is {context_length}: shorten it"
        )
    # All rows have the same room, as they have in `generate`, so that only ends of texts need padding.
    limit = min(settings.max_tokens, context_length - longest)
    if settings.pad is None and len(input_ids) > 1 and (settings.ends or settings.criteria):
        raise UserError("texts of a batch may end at different places: give generate a pad_token_id")
    return [
        Sequence(
            prompt=row[mask].tolist(),
            sampling=settings.sampling,
            max_tokens=limit,
            stop_ids=settings.ends,
            choice=number,
            halt=_Halt(settings.criteria, row[None]) if settings.criteria else None,
            mask=_NoEndYet(settings, vocabulary_size) if settings.least and settings.ends else None,
        )
        for number, (row, mask) in enumerate(zip(input_ids, shown, strict=True))
    ]


def padded(input_ids: torch.Tensor, sequences: Seq[Sequence], pad: int | None) -> torch.Tensor:
    """(rows, width + longest text) the prompts as they were given, and the texts padded on the right."""
    longest = max(len(one.tokens) for one in sequences)
    texts = [_filled(one, longest, pad) for one in sequences]
    return torch.cat([input_ids, torch.tensor(texts, dtype=input_ids.dtype, device=input_ids.device)], -1)


class StreamedPositions:
    """Gives a streamer each place of the texts as soon as all rows have it, padded where a text has ended."""

    def __init__(self, streamer: Any, sequences: Seq[Sequence], pad: int | None) -> None:
        self._streamer = streamer
        self._sequences = sequences
        self._pad = pad
        self._given = 0

    def advance(self) -> None:
        """Give what has become ready."""
        running = [len(one.tokens) for one in self._sequences if one.finish_reason is None]
        ready = min(running) if running else max(len(one.tokens) for one in self._sequences)
        for place in range(self._given, ready):
            tokens = [_filled(one, place + 1, self._pad)[place] for one in self._sequences]
            self._streamer.put(torch.tensor(tokens))
        self._given = ready


class _Halt:
    """Asks stopping criteria about one row, as `generate` would in a batch of one."""

    def __init__(self, criteria: Seq[Any], row: torch.Tensor) -> None:
        self._criteria = criteria
        self._row = row

    def __call__(self, token: int) -> bool:
        self._row = torch.cat([self._row, self._row.new_tensor([[token]])], -1)
        # All are asked each time, as `generate` does: some count their calls.
        answers = [one(self._row, None) for one in self._criteria]
        return any(bool(torch.as_tensor(answer).all()) for answer in answers)


class _NoEndYet:
    """Forbids the tokens that end a text before it is long enough."""

    def __init__(self, settings: Settings, vocabulary_size: int) -> None:
        self._missing = settings.least
        self._all: BoolArray = np.ones(vocabulary_size, np.bool_)
        self._going_on = self._all.copy()
        self._going_on[[token for token in settings.ends if token < vocabulary_size]] = False

    def allowed(self, path: Seq[int]) -> BoolArray:
        """See `Mask`."""
        return self._going_on if len(path) < self._missing else self._all

    def advance(self, tokens: Seq[int]) -> None:
        """See `Mask`."""
        self._missing -= len(tokens)


def _filled(sequence: Sequence, length: int, pad: int | None) -> list[int]:
    missing = length - len(sequence.tokens)
    assert missing <= 0 or pad is not None
    return [*sequence.tokens[:length], *([pad] * missing if pad is not None else [])]


def _shown(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """(rows, width) true where a token is none of the padding."""
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    shown = attention_mask.to(input_ids.device).bool()
    if shown.shape != input_ids.shape or not shown[:, -1].all() or (shown[:, 1:] < shown[:, :-1]).any():
        raise UserError(
            "an attention_mask may hide padding on the left only: set the tokenizer's padding_side to 'left'"
        )
    return shown


def _check_positions(shown: torch.Tensor, position_ids: torch.Tensor | None) -> None:
    if position_ids is None:
        return
    expected = shown.long().cumsum(-1) - 1
    given = position_ids.to(shown.device).expand_as(shown) if position_ids.dim() == 2 else None
    if given is None or not torch.equal(given[shown], expected[shown]):
        raise UserError("medusa_generate counts positions itself: leave position_ids out")
