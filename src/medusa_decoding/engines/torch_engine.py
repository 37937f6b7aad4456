"""The torch engine: any Hugging Face causal LM, on CPU or CUDA, verifies trees through masks and position
ids.

Sequences with a similar number of rows share a model call; a long prompt beside single rows gets a call of
its own. The result of a row depends a little on the other rows of its call, because matrix products round
differently with their
shape: exact in practice in float64 and, but for near-ties, in float32 (docs/exactness.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medusa_decoding.decoding.protocols import Rows
from medusa_decoding.decoding.tree import BoolArray, FloatArray, IntArray
from medusa_decoding.engines.cache import Placement, SlotCache, capacity_for, position_bytes
from medusa_decoding.engines.masks import BatchShape, build_masks
from medusa_decoding.engines.support import Support, inspect_model


@dataclass
class _Slot:
    index: int
    length: int = 0


class TorchVerified:
    """Logits and hidden states of the wanted rows, on the model's device."""

    def __init__(self, logits: torch.Tensor, hidden: torch.Tensor, place: IntArray) -> None:
        self._logits = logits
        self._hidden = hidden
        self._place = place

    def argmax(self, rows: IntArray) -> IntArray:
        """(n,) the likeliest next token of each row, ties to the lowest id."""
        places = self._place[rows]
        assert (places >= 0).all(), "asked for a row that was not wanted"
        best: IntArray = self._logits.argmax(-1).cpu().numpy()[places]
        return best

    def logits(self, row: int) -> FloatArray:
        """(vocabulary,) the row's logits in float64."""
        values: FloatArray = self._logits[self._place_of(row)].double().cpu().numpy()
        return values

    def hidden(self, row: int) -> torch.Tensor:
        """(hidden size,) the input of the model's lm_head for this row."""
        return self._hidden[self._place_of(row)]

    def _place_of(self, row: int) -> int:
        place = int(self._place[row])
        assert place >= 0, "asked for a row that was not wanted"
        return place


@dataclass(frozen=True)
class _Group:
    """Sequences that share a model call: their handles, and for each the range of its rows in the pass."""

    handles: list[int]
    spans: list[tuple[int, int]]


class TorchEngine:
    """A base model in torch.

    model: a Hugging Face causal LM in eval mode. Raises UserError where its architecture cannot verify trees;
    use `PlainEngine` then. context_length: the model's own by default; less, with a warning, where its rotary
    scaling would change in between.
    """

    def __init__(self, model: Any, context_length: int | None = None, support: Support | None = None) -> None:
        self.model = model
        self.support = support or inspect_model(model)
        config = model.config.get_text_config()
        self.context_length = self._context(
            int(context_length or getattr(config, "max_position_embeddings", 0) or 2**31)
        )
        head = model.get_output_embeddings()
        # Quantised weights are packed, so their shape tells nothing.
        self.vocabulary_size = int(
            head.out_features if hasattr(head, "out_features") else head.weight.shape[0]
        )
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        self._cache = SlotCache(int(config.num_hidden_layers))
        self._slots: dict[int, _Slot] = {}
        self._handles = 0
        self._pass: Rows | None = None

    def _context(self, asked: int) -> int:
        most = self.support.positions
        if most is None or asked <= most:
            return asked
        warnings.warn(
            f"this model's rotary scaling changes after {most} positions, where kept keys would not fit; "
            f"its context is cut from {asked} to {most} tokens",
            stacklevel=3,
        )
        return most

    def open(self) -> int:
        """Begin a sequence in the lowest free slot."""
        taken = {slot.index for slot in self._slots.values()}
        self._handles += 1
        self._slots[self._handles] = _Slot(
            next(index for index in range(len(taken) + 1) if index not in taken)
        )
        return self._handles

    def close(self, sequence: int) -> None:
        """End a sequence; its slot is free for the next. After the last one all memory is given back."""
        del self._slots[sequence]
        if not self._slots:
            self._cache.clear()

    @torch.inference_mode()
    def fork(self, sequence: int, length: int) -> int:
        """Begin a sequence with a copy of the first `length` committed tokens of another."""
        source = self._slots[sequence]
        assert 0 <= length <= source.length
        handle = self.open()
        slot = self._slots[handle]
        for layer in self._cache.layers:
            layer.copy(source.index, slot.index, length)
        slot.length = length
        return handle

    def kv_bytes(self, lengths: Sequence[int]) -> int:
        """Bytes that keys and values of sequences of these lengths take: each has the longest one's room.

        Slots and room that are there already stay as long as any sequence is open.
        """
        slots, room = self._cache.room
        cells = max(slots, len(lengths)) * capacity_for(max(lengths, default=0), room)
        return cells * position_bytes(self.model.config.get_text_config(), self.dtype)

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` committed tokens."""
        slot = self._slots[sequence]
        assert 0 <= length <= slot.length
        slot.length = length

    @torch.inference_mode()
    def forward(self, rows: Rows) -> TorchVerified:
        """Run the base model over `rows`, in one call per group of sequences with similar numbers of rows."""
        assert int(rows.positions.max()) < self.context_length
        self._pass = rows
        place = np.full(len(rows), -1, np.int64)
        logits, hidden, found = [], [], 0
        for group in _groups(rows):
            wanted = np.concatenate([np.arange(a, b)[rows.wanted[a:b]] for a, b in group.spans])
            place[wanted] = found + np.arange(len(wanted))
            found += len(wanted)
            group_logits, group_hidden = self._run(rows, group)
            logits.append(group_logits)
            hidden.append(group_hidden)
        if len(logits) == 1:
            return TorchVerified(logits[0], hidden[0], place)
        return TorchVerified(torch.cat(logits), torch.cat(hidden), place)

    @torch.inference_mode()
    def commit(self, accepted: IntArray) -> None:
        """Keep the accepted rows of the last pass, each sequence's next to its committed tokens."""
        assert self._pass is not None
        owners = self._pass.sequences[accepted]
        for handle in dict.fromkeys(owners.tolist()):
            slot = self._slots[handle]
            first = int(np.flatnonzero(self._pass.sequences == handle)[0])
            kept = accepted[owners == handle] - first
            self._cache.keep(slot.index, slot.length, kept)
            slot.length += len(kept)
        self._pass = None

    def _run(self, rows: Rows, group: _Group) -> tuple[torch.Tensor, torch.Tensor]:
        """One model call;

        Returns (wanted rows, vocabulary) logits and (wanted rows, hidden size) hidden states.
        """
        slots = [self._slots[handle] for handle in group.handles]
        shape, tokens, wanted = _batch(rows, group, [slot.length for slot in slots])
        placement = Placement.of(
            [slot.index for slot in slots], [slot.length for slot in slots], tokens.shape[1], self.device
        )
        self._cache.place(placement, 1 + max(slot.index for slot in self._slots.values()))
        chosen = torch.from_numpy(np.flatnonzero(wanted)).to(self.device)
        with _selected_rows(self.model.get_output_embeddings(), chosen) as hidden:
            output = self.model(
                input_ids=torch.from_numpy(tokens).to(self.device),
                position_ids=torch.from_numpy(shape.positions).to(self.device),
                attention_mask=build_masks(self.support.masks, shape, self.dtype, self.device),
                past_key_values=self._cache,
                use_cache=True,
            )
        return output.logits[0], hidden[0]


@contextmanager
def _selected_rows(head: torch.nn.Module, chosen: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """While open, the lm_head computes logits of the chosen rows only, as one sequence; the list receives its
    input, the hidden states of those rows.

    The hook is gone afterwards: the model's other users must not notice it.
    """
    hidden: list[torch.Tensor] = []

    def select(_: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states = arguments[0]
        hidden.append(states.reshape(-1, states.shape[-1])[chosen.to(states.device)])
        return (hidden[0][None], *arguments[1:])

    hook = head.register_forward_pre_hook(select)
    try:
        yield hidden
    finally:
        hook.remove()


def _groups(rows: Rows) -> list[_Group]:
    """Sequences by rising number of rows; a group holds those of at most twice the rows of its smallest."""
    starts = np.flatnonzero(np.diff(rows.sequences, prepend=-1))
    ends = np.append(starts[1:], len(rows))
    spans = sorted(zip(starts.tolist(), ends.tolist(), strict=True), key=lambda span: span[1] - span[0])
    groups: list[list[tuple[int, int]]] = []
    for span in spans:
        if groups and span[1] - span[0] <= 2 * (groups[-1][0][1] - groups[-1][0][0]):
            groups[-1].append(span)
        else:
            groups.append([span])
    # In order of rows, so that the sequences' slots follow each other and need no copy.
    return [_Group([int(rows.sequences[a]) for a, _ in sorted(group)], sorted(group)) for group in groups]


def _batch(rows: Rows, group: _Group, lengths: list[int]) -> tuple[BatchShape, IntArray, BoolArray]:
    """The group's rows padded to (sequences, rows): shape, tokens, and which cells are wanted."""
    batch, most = len(group.spans), max(b - a for a, b in group.spans)
    bases = np.array(lengths, np.int64)
    parents = np.full((batch, most), -1, np.int64)
    positions = np.repeat(bases[:, None], most, axis=1)
    tokens = np.zeros((batch, most), np.int64)
    wanted = np.zeros((batch, most), np.bool_)
    for index, (a, b) in enumerate(group.spans):
        parents[index, : b - a] = np.where(rows.parents[a:b] < 0, -1, rows.parents[a:b] - a)
        positions[index, : b - a] = rows.positions[a:b]
        tokens[index, : b - a] = rows.tokens[a:b]
        wanted[index, : b - a] = rows.wanted[a:b]
    counts = np.array([b - a for a, b in group.spans], np.int64)
    return BatchShape(counts, bases, parents, positions), tokens, wanted
