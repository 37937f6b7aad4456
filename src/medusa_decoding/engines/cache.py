"""Keys and values of many sequences, of which only accepted rows are kept.

Each sequence owns a slot of a tensor (slots, heads, capacity, head size) per layer. The rows of a forward
pass are written behind the slot's committed tokens; commit moves the accepted ones next to those. Every layer
is of full length, sliding windows are the mask's business, because a layer that has dropped old keys cannot
take a step back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from medusa_decoding.decoding.tree import IntArray

SMALLEST_CAPACITY = 256


@dataclass(frozen=True)
class Placement:
    """Where the rows of the current pass go.

    slots: (sequences,) slot of each sequence in the batch. bases: (sequences,) committed tokens of each.
    rows: rows per sequence, padding included. length: keys that attention sees.
    """

    slots: torch.Tensor
    bases: torch.Tensor
    rows: int
    length: int
    first: int
    contiguous: bool

    @classmethod
    def of(cls, slots: list[int], bases: list[int], rows: int, device: torch.device) -> Placement:
        """The placement of `rows` rows for each of these slots."""
        contiguous = slots == list(range(slots[0], slots[0] + len(slots)))
        return cls(
            torch.tensor(slots, device=device),
            torch.tensor(bases, device=device),
            rows,
            max(bases) + rows,
            slots[0],
            contiguous,
        )


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values. Tensors are made at the first update, when their shapes are known."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.placement: Placement | None = None
        self.slots = 0
        self.capacity = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make empty storage for keys (batch, heads, rows, size) and values of this form."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros(0, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(0, value_states.shape[1], 0, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the pass's keys and values behind the committed ones; return all that attention sees."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self.placement
        assert place is not None
        self.keys = _grown(self.keys, self.slots, self.capacity)
        self.values = _grown(self.values, self.slots, self.capacity)
        return _written(self.keys, key_states, place), _written(self.values, value_states, place)

    def move(self, slot: int, base: int, kept: torch.Tensor) -> None:
        """Move the rows `kept` of the last pass next to the slot's `base` committed tokens."""
        if self.is_initialized:
            for store in (self.keys, self.values):
                store[slot, :, base : base + len(kept)] = store[slot, :, base + kept]

    def clear(self) -> None:
        """Forget all slots and give their memory back."""
        self.slots = self.capacity = 0
        if self.is_initialized:
            self.lazy_initialization(self.keys, self.values)

    def copy(self, slot: int, to: int, length: int) -> None:
        """Copy a slot's first `length` tokens to another one's place."""
        if not length:
            return
        self.slots = max(self.slots, to + 1)
        self.keys = _grown(self.keys, self.slots, self.capacity)
        self.values = _grown(self.values, self.slots, self.capacity)
        for store in (self.keys, self.values):
            store[to, :, :length] = store[slot, :, :length]

    def get_seq_length(self) -> int:
        """Committed tokens of the longest sequence in the pass."""
        return 0 if self.placement is None else self.placement.length - self.placement.rows

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys and offset of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class SlotCache(Cache):
    """The cache handed to the model: a `SlotLayer` per layer."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[SlotLayer() for _ in range(layers)])

    def place(self, placement: Placement, slots: int) -> None:
        """Prepare for a pass: room for `slots` slots and for all its rows."""
        for layer in self.layers:
            layer.placement = placement
            layer.slots = max(layer.slots, slots)
            layer.capacity = capacity_for(placement.length, layer.capacity)

    @property
    def room(self) -> tuple[int, int]:
        """Slots, and positions of each, that there is memory for."""
        return self.layers[0].slots, self.layers[0].capacity

    def clear(self) -> None:
        """Forget all slots and give their memory back."""
        for layer in self.layers:
            layer.clear()

    def keep(self, slot: int, base: int, kept: IntArray) -> None:
        """Keep rows `kept` (rising, counted from the first of the slot's rows) of the last pass."""
        if len(kept) == 0 or kept[-1] == len(kept) - 1:
            return
        for layer in self.layers:
            rows = torch.as_tensor(kept, device=layer.device if layer.is_initialized else None)
            layer.move(slot, base, rows)


def capacity_for(length: int, capacity: int = 0) -> int:
    """Positions that slots of this capacity have after making room for `length`."""
    while capacity < length:
        capacity = max(SMALLEST_CAPACITY, 2 * capacity)
    return capacity


def position_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of one position's keys and values in all layers, by a text model's config."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers) * 2 * int(heads) * int(size) * dtype.itemsize


def _grown(store: torch.Tensor, slots: int, capacity: int) -> torch.Tensor:
    if store.shape[0] >= slots and store.shape[2] >= capacity:
        return store
    grown = store.new_zeros(
        max(slots, store.shape[0]), store.shape[1], max(capacity, store.shape[2]), store.shape[3]
    )
    grown[: store.shape[0], :, : store.shape[2]] = store
    return grown


def _written(store: torch.Tensor, states: torch.Tensor, place: Placement) -> torch.Tensor:
    batch = len(place.slots)
    if batch == 1:
        base = place.length - place.rows
        store[place.first, :, base : place.length] = states[0]
    else:
        # A model spread over several devices has layers elsewhere than the placement.
        slots, bases = place.slots.to(store.device), place.bases.to(store.device)
        columns = bases[:, None] + torch.arange(place.rows, device=store.device)
        store[slots[:, None], :, columns] = states.transpose(1, 2)
    if place.contiguous:
        return store[place.first : place.first + batch, :, : place.length]
    return store[place.slots.to(store.device), :, : place.length]
