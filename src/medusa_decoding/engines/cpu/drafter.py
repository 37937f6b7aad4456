"""Medusa heads in the CPU engine: one call guesses for all sequences, with the engine's packed linears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Literal, Protocol

import numpy as np

from medusa_decoding import _native
from medusa_decoding.decoding.protocols import Context
from medusa_decoding.decoding.tree import Proposals
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.engines.cpu.memory import in_one_block
from medusa_decoding.engines.cpu.packed import Address, Array, address, pack_linear, take_rows


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
        self._engine = engine  # whose arrays the native heads read, as they do their own
        size = engine.shape.hidden_size
        if shape.hidden_size != size:
            raise ValueError(f"heads of width {shape.hidden_size} do not have the size of the model, {size}")
        tokens = state["token_map"].astype(np.int64) if "token_map" in state else None
        linears = dict(_own_linears(shape, state))
        arrays: dict[str, Array] = {}
        for name, (weight, bias) in linears.items():
            arrays.update(pack_linear(name, weight, bias, engine.weights, engine.threads))
        draft = engine.vocabulary_size if tokens is None else len(tokens)
        if shape.projection == "shared" and tokens is not None:
            taken = take_rows(engine.arrays, "head", tokens, size)
            arrays.update({f"projection.{part}": array for part, array in taken.items()})
        self._arrays = in_one_block(arrays)
        self.top_k = min(top_k, draft)

        def found(*names: str) -> list[Address]:
            return [address(self._arrays, name, *linears[name][0].shape) for name in names if name in linears]

        heads = range(shape.num_heads)
        if shape.projection == "own":
            projections = found(*(f"{head}.projection" for head in heads))
        elif tokens is None:
            projections = [address(engine.arrays, "head", draft, size)]
        else:
            projections = [address(self._arrays, "projection", draft, size)]
        temperatures = shape.calibration or [1.0] * shape.num_heads
        self._heads = _native.Heads(
            engine.model,
            heads=shape.num_heads,
            draft=draft,
            first=found("first"),
            root=found("root"),
            rest=[found(*(f"{head}.{layer}" for head in heads)) for layer in range(1, shape.num_layers)],
            projections=projections,
            tokens=[] if tokens is None else tokens.tolist(),
            inverse_temperatures=[1.0 / temperature for temperature in temperatures],
        )

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """Per context, (K, top_k) token ids and probabilities, likeliest first, ties to the lowest id."""
        if not contexts:
            return []
        hidden = contexts[0].hidden[None] if len(contexts) == 1 else np.stack([c.hidden for c in contexts])
        roots = np.array([context.root for context in contexts], np.int64)
        tokens, chances = self._heads.propose(hidden, roots, self.top_k)
        probabilities = np.exp(chances.astype(np.float64))
        return [Proposals(tokens[i], probabilities[i]) for i in range(len(contexts))]


def _own_linears(
    shape: HeadsShape, state: Mapping[str, Array]
) -> Iterator[tuple[str, tuple[Array, Array | None]]]:
    """By name, weight and bias of what the heads do not share with the base model."""
    heads = range(shape.num_heads)
    if shape.num_layers:
        weights = [state[f"{head}.0.linear.weight"] for head in heads]
        biases = [state[f"{head}.0.linear.bias"] for head in heads]
        yield "first", (np.concatenate(weights), np.concatenate(biases))
    if shape.num_layers and shape.condition == "root":
        yield "root", (np.concatenate([state[f"{head}.0.root.weight"] for head in heads]), None)
    for layer, head in product(range(1, shape.num_layers), heads):
        names = (f"{head}.{layer}.linear.{part}" for part in ("weight", "bias"))
        weight, bias = (state[name] for name in names)
        yield f"{head}.{layer}", (weight, bias)
    if shape.projection == "own":
        for head in heads:
            yield f"{head}.projection", (state[f"{head}.{shape.num_layers}.weight"], None)
