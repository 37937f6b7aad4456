"""Medusa heads in the CPU engine: one call guesses for all sequences, with the engine's packed linears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medusa_decoding import _native
from medusa_decoding.decoding.protocols import Context
from medusa_decoding.decoding.tree import Proposals
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.engines.cpu.packed import Address, Array, Weights, address, pack_linear, take_rows


class HeadsShape(Protocol):
    """What heads are: the fields of `heads.HeadsConfig` that matter here."""

    @property
    def num_heads(self) -> int: ...  # noqa: D102
    @property
    def num_layers(self) -> int: ...  # noqa: D102
    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def projection(self) -> Literal["shared", "own"]: ...  # noqa: D102
    @property
    def condition(self) -> Literal["none", "root"]: ...  # noqa: D102
    @property
    def calibration(self) -> list[float] | None: ...  # noqa: D102


class CpuDrafter:
    """Proposes each head's `top_k` likeliest tokens for all sequences in one call.

    state: the heads' tensors, float32, under the names of their checkpoint (`{h}.{l}.linear.weight` and so
    on); they fit `shape` and the engine's model.
    """

    def __init__(
        self, engine: CpuEngine, shape: HeadsShape, state: Mapping[str, Array], top_k: int = 10
    ) -> None:
        self._engine = engine
        self._shape = shape
        self._arrays: dict[str, Array] = {}
        self._weights: Weights = engine.weights
        size, heads = shape.hidden_size, range(shape.num_heads)
        tokens = state["token_map"].astype(np.int64) if "token_map" in state else None
        projections = self._projections(state, tokens)
        draft = projections[0][0]
        self.top_k = min(top_k, draft)
        first, root, rest = list[Address](), list[Address](), list[list[Address]]()
        if shape.num_layers:
            stacked = np.concatenate([state[f"{head}.0.linear.weight"] for head in heads])
            bias = np.concatenate([state[f"{head}.0.linear.bias"] for head in heads])
            first = [self._add("first", stacked, bias)]
        if shape.num_layers and shape.condition == "root":
            root = [self._add("root", np.concatenate([state[f"{head}.0.root.weight"] for head in heads]))]
        for layer in range(1, shape.num_layers):
            named = [(f"{head}.{layer}.linear.weight", f"{head}.{layer}.linear.bias") for head in heads]
            rest.append([self._add(weight, state[weight], state[bias]) for weight, bias in named])
        temperatures = shape.calibration or [1.0] * shape.num_heads
        self._heads = _native.Heads(
            engine.model,
            heads=shape.num_heads,
            draft=draft,
            first=first,
            root=root,
            rest=rest,
            projections=projections,
            tokens=[] if tokens is None else tokens.tolist(),
            inverse_temperatures=[1.0 / temperature for temperature in temperatures],
        )
        assert size == engine.shape.hidden_size

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """Per context, (K, top_k) token ids and probabilities, likeliest first, ties to the lowest id."""
        if not contexts:
            return []
        hidden = contexts[0].hidden[None] if len(contexts) == 1 else np.stack([c.hidden for c in contexts])
        roots = np.array([context.root for context in contexts], np.int64)
        tokens, chances = self._heads.propose(hidden, roots, self.top_k)
        probabilities = np.exp(chances.astype(np.float64))
        return [Proposals(tokens[i], probabilities[i]) for i in range(len(contexts))]

    def _projections(self, state: Mapping[str, Array], tokens: NDArray[np.int64] | None) -> list[Address]:
        shape, engine = self._shape, self._engine
        if shape.projection == "own":
            names = [f"{head}.{shape.num_layers}.weight" for head in range(shape.num_heads)]
            return [self._add(name, state[name]) for name in names]
        size, vocabulary = shape.hidden_size, engine.vocabulary_size
        if tokens is None:
            return [address(engine.arrays, "head", vocabulary, size)]
        for part, array in take_rows(engine.arrays, "head", tokens, size).items():
            self._arrays[f"projection.{part}"] = array
        return [address(self._arrays, "projection", len(tokens), size)]

    def _add(self, name: str, weight: Array, bias: Array | None = None) -> Address:
        """Pack a linear and keep its arrays alive."""
        self._arrays.update(pack_linear(name, weight, bias, self._weights, self._engine.threads))
        return address(self._arrays, name, *weight.shape)
