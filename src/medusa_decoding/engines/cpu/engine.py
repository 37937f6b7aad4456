"""The CPU engine: a decoder of the Llama family in C++, as the loop knows engines.

A row's logits are bit-identical however rows are grouped: alone, in any tree, beside other sequences, in any
piece of a prompt, with any number of threads (docs/cpu-engine.md says why).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medusa_decoding import _native
from medusa_decoding.decoding.protocols import Rows
from medusa_decoding.decoding.tree import FloatArray, IntArray
from medusa_decoding.engines.cpu.packed import Array, Weights, address, layer_norms, norm_address
from medusa_decoding.engines.cpu.shape import LlamaShape

KvCache = Literal["fp32", "fp16"]
"""What keys and values are kept as."""

PAGE = 64
"""Positions whose keys and values are kept together (native/cache.h)."""


def default_threads() -> int:
    """The cores this process may use; hyper-threads count, since the system does not tell them apart."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuVerified:
    """Logits and hidden states of the wanted rows; valid until the engine's next pass."""

    def __init__(self, model: _native.Model) -> None:
        self._model = model

    def argmax(self, rows: IntArray) -> IntArray:
        """(n,) the likeliest next token of each row, ties to the lowest id."""
        best: IntArray = self._model.argmax(rows)
        return best

    def logits(self, row: int) -> FloatArray:
        """(vocabulary,) the row's logits in float64."""
        values: FloatArray = self._model.logits(row)
        return values

    def hidden(self, row: int) -> NDArray[np.float32]:
        """(hidden size,) the row's hidden state, after the final norm."""
        state: NDArray[np.float32] = self._model.hidden(row)
        return state


class CpuEngine:
    """A base model on the CPU, in C++.

    arrays: what `pack_model` made. threads: by default as many as there are cores. isa: "auto", or "amx",
    "avx512", "avx2" or "portable" where the processor has it; all give the same bits. kv_cache: fp16
    halves what keys and values take, and rounds them. Raises ValueError where arrays and shape do not fit.
    """

    def __init__(
        self,
        shape: LlamaShape,
        arrays: Mapping[str, Array],
        threads: int | None = None,
        isa: str = "auto",
        kv_cache: KvCache = "fp32",
    ) -> None:
        self.shape = shape
        self.kv_cache = kv_cache
        self.vocabulary_size = shape.vocabulary_size
        self.context_length = shape.context_length
        # The native model reads these arrays where they are.
        self.arrays = dict(arrays)
        self.model = _build(shape, self.arrays, threads or default_threads(), isa, kv_cache)

    @property
    def description(self) -> str:
        """What decides this engine's speed, besides model and processor."""
        kept = "" if self.kv_cache == "fp32" else f"-kv-{self.kv_cache}"
        narrow = "-in-4-bits" if any(array.dtype == np.uint8 for array in self.arrays.values()) else ""
        return f"cpu-{self.weights}{narrow}-{self.model.isa}{kept}"

    @property
    def weights(self) -> Weights:
        """What the weights are; int8 ones may be kept in fewer bits (docs/cpu-engine.md)."""
        return "int8" if self.arrays["head.weights"].dtype == np.int8 else "fp32"

    @property
    def threads(self) -> int:
        """How many threads run a pass."""
        return int(self.model.threads)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a pass reads."""
        return int(self.model.weight_bytes)

    def read_bandwidth(self) -> float:
        """GB/s at which this machine reads the weights just now: one pass over all of them."""
        return self.weight_bytes / self.model.read_weights() / 1e9

    def kv_bytes(self, lengths: Sequence[int]) -> int:
        """Bytes that keys and values of sequences of these lengths take, if they share nothing."""
        shape = self.shape
        page = (
            shape.layers * 2 * shape.kv_heads * shape.head_dim * PAGE * (2 if self.kv_cache == "fp16" else 4)
        )
        return sum(-(-length // PAGE) for length in lengths) * page

    def open(self) -> int:
        """Begin a sequence without tokens."""
        return int(self.model.open())

    def fork(self, sequence: int, length: int) -> int:
        """Begin a sequence with the first `length` tokens of another; their keys and values are shared."""
        return int(self.model.fork(sequence, length))

    def close(self, sequence: int) -> None:
        """End a sequence and free its memory."""
        self.model.close(sequence)

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` committed tokens."""
        self.model.truncate(sequence, length)

    def forward(self, rows: Rows) -> CpuVerified:
        """Run the base model over `rows`."""
        self.model.forward(rows.sequences, rows.tokens, rows.positions, rows.parents, rows.wanted, True)
        return CpuVerified(self.model)

    def hidden_states(self, rows: Rows) -> NDArray[np.float32]:
        """(wanted rows, hidden size): run the base model over `rows` without computing logits."""
        self.model.forward(rows.sequences, rows.tokens, rows.positions, rows.parents, rows.wanted, False)
        states = [self.model.hidden(int(row)) for row in np.flatnonzero(rows.wanted)]
        return np.stack(states) if states else np.empty((0, self.shape.hidden_size), np.float32)

    def commit(self, accepted: IntArray) -> None:
        """Keep the accepted rows of the last pass."""
        self.model.commit(accepted)


def _build(
    shape: LlamaShape, arrays: Mapping[str, Array], threads: int, isa: str, kv_cache: KvCache
) -> _native.Model:
    size, attended = shape.hidden_size, shape.heads * shape.head_dim
    queries_keys_values = attended + 2 * shape.kv_heads * shape.head_dim
    linears, norms = [], []
    for index in range(shape.layers):
        here = f"layers.{index}"
        linears.append(
            [
                address(arrays, f"{here}.qkv", queries_keys_values, size),
                address(arrays, f"{here}.output", size, attended),
                address(arrays, f"{here}.gate_up", 2 * shape.intermediate_size, size),
                address(arrays, f"{here}.down", size, shape.intermediate_size),
            ]
        )
        sizes = (size, size, shape.head_dim, shape.head_dim)
        norms.append(
            [
                norm_address(arrays, name, width, optional=place > 1)
                for place, (name, width) in enumerate(zip(layer_norms(index), sizes, strict=True))
            ]
        )
    head = address(arrays, "head", shape.vocabulary_size, size)
    embedding = head if shape.tied else address(arrays, "embedding", shape.vocabulary_size, size)
    return _native.Model(
        sizes=[
            shape.layers,
            size,
            shape.intermediate_size,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.vocabulary_size,
        ],
        context=shape.context_length,
        window=shape.window or 0,
        epsilon=shape.norm_epsilon,
        amplitude=shape.rope_amplitude,
        inverse_frequencies=list(shape.inverse_frequencies),
        linears=linears,
        norms=norms,
        head=head,
        embedding=embedding,
        norm=norm_address(arrays, "norm", size),
        threads=threads,
        isa=isa,
        half_cache=kv_cache == "fp16",
    )
