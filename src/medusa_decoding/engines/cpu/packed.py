"""Weights in the order in which the CPU engine reads them: arrays by name, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medusa_decoding import _native
from medusa_decoding.engines.cpu.shape import LlamaShape

Array = NDArray[Any]
Weights = Literal["int8", "fp32"]
Address = tuple[int, int, str, int, int, int]
"""Of a linear: output and input channels, how its weights are kept, addresses of weights, scales and bias (0:
none).
"""
_KEPT = {"uint8": ("int4", 5 / 8), "int8": ("int8", 1), "float32": ("fp32", 1)}
"""How weights of a type are kept, and how many elements of the array one weight takes."""


class Checkpoint(Protocol):
    """Where weights come from: names as in transformers' Llama, tensors in float32."""

    @property
    def shape(self) -> LlamaShape:
        """Sizes and constants of the model."""
        ...

    @property
    def names(self) -> Collection[str]:
        """All tensors there are."""
        ...

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One of them."""
        ...


@dataclass(frozen=True)
class LinearSource:
    """A linear of the engine: the checkpoint's tensors whose output channels it joins."""

    name: str
    parts: tuple[str, ...]

    def names(self, kind: Literal["weight", "bias"]) -> list[str]:
        """The parts' full names."""
        return [f"{part}.{kind}" for part in self.parts]


def layer_linears(index: int) -> tuple[LinearSource, ...]:
    """The four linears of a layer, in the order in which the engine takes them."""
    prefix = f"model.layers.{index}"
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    return (
        LinearSource(
            f"layers.{index}.qkv", (f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj")
        ),
        LinearSource(f"layers.{index}.output", (f"{attention}.o_proj",)),
        LinearSource(f"layers.{index}.gate_up", (f"{mlp}.gate_proj", f"{mlp}.up_proj")),
        LinearSource(f"layers.{index}.down", (f"{mlp}.down_proj",)),
    )


def layer_norms(index: int) -> dict[str, str]:
    """The norms of a layer, in the engine's order; the last two are Qwen3's."""
    prefix, here = f"model.layers.{index}", f"layers.{index}"
    return {
        f"{here}.attention_norm": f"{prefix}.input_layernorm.weight",
        f"{here}.mlp_norm": f"{prefix}.post_attention_layernorm.weight",
        f"{here}.query_norm": f"{prefix}.self_attn.q_norm.weight",
        f"{here}.key_norm": f"{prefix}.self_attn.k_norm.weight",
    }


def pack_model(
    checkpoint: Checkpoint,
    weights: Weights,
    threads: int,
    advance: Callable[[], None] = lambda: None,
    *,
    four_bits: bool = True,
) -> dict[str, Array]:
    """All arrays of a model: `NAME.weights`, `NAME.scale`, `NAME.bias` of each linear, and the norms.

    four_bits: keep layers in 4 bits where they allow it, see `pack_linear`. One tensor at a time passes
    through float32. `advance` is called after each layer.
    """
    arrays: dict[str, Array] = {}
    for index in range(checkpoint.shape.layers):
        for source in layer_linears(index):
            arrays.update(_pack(checkpoint, source, weights, threads, four_bits=four_bits))
        for name, tensor in layer_norms(index).items():
            if tensor in checkpoint.names:
                arrays[name] = checkpoint.tensor(tensor)
        advance()
    arrays["norm"] = checkpoint.tensor("model.norm.weight")
    embedding = LinearSource("embedding", ("model.embed_tokens",))
    head = LinearSource("head", ("lm_head",))
    if checkpoint.shape.tied:
        head = LinearSource("head", embedding.parts)
    else:
        arrays.update(_pack(checkpoint, embedding, weights, threads))
    arrays.update(_pack(checkpoint, head, weights, threads))
    return arrays


def pack_linear(
    name: str, weight: Array, bias: Array | None, weights: Weights, threads: int, *, four_bits: bool = False
) -> Iterator[tuple[str, Array]]:
    """The arrays of one linear of (output channels, input channels).

    four_bits: keep int8 weights in 4 bits where they allow it, as those of 4-bit checkpoints do
    (native/packing.h); of such a linear neither `take_rows` nor an embedding can be made.
    """
    plain = np.ascontiguousarray(weight, np.float32)
    narrow = _native.pack(plain, "int4", threads) if four_bits and weights == "int8" else None
    packed, scale = narrow or _native.pack(plain, weights, threads)
    yield f"{name}.weights", packed
    if scale is not None:
        yield f"{name}.scale", scale
    if bias is not None:
        padded = np.zeros(-(-len(weight) // _native.PANEL) * _native.PANEL, np.float32)
        padded[: len(bias)] = bias
        yield f"{name}.bias", padded


def address(arrays: Mapping[str, Array], name: str, outputs: int, inputs: int) -> Address:
    """Where the engine finds the linear `name`; the caller keeps `arrays` alive.

    Raises ValueError where the arrays do not have the size of a linear of that many channels.
    """
    weights, scale, bias = (arrays.get(f"{name}.{part}") for part in ("weights", "scale", "bias"))
    padded = -(-outputs // _native.PANEL) * _native.PANEL
    kept, elements = _KEPT.get(str(weights.dtype) if weights is not None else "", ("", 0))
    fits = weights is not None and kept != "" and weights.size == padded * inputs * elements
    for vector in (scale, bias):
        fits = fits and (vector is None or (vector.size == padded and vector.dtype == np.float32))
    if not fits or weights is None or (scale is None) != (kept == "fp32"):
        raise ValueError(f"the packed weights of {name} do not have the size of the model")
    return (outputs, inputs, kept, _place(weights), _place(scale), _place(bias))


def norm_address(arrays: Mapping[str, Array], name: str, size: int, *, optional: bool = False) -> int:
    """Where the engine finds a norm's weights; 0 for an optional one that is not there."""
    array = arrays.get(name)
    if array is None and optional:
        return 0
    if array is None or array.size != size or array.dtype != np.float32:
        raise ValueError(f"the packed weights of {name} do not have the size of the model")
    return _place(array)


def _place(array: Array | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


def _pack(
    checkpoint: Checkpoint, source: LinearSource, weights: Weights, threads: int, *, four_bits: bool = False
) -> Iterator[tuple[str, Array]]:
    tensors = [checkpoint.tensor(name) for name in source.names("weight")]
    weight = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
    bias = None
    if any(name in checkpoint.names for name in source.names("bias")):
        bias = np.concatenate(
            [
                checkpoint.tensor(name) if name in checkpoint.names else np.zeros(len(tensor), np.float32)
                for name, tensor in zip(source.names("bias"), tensors, strict=True)
            ]
        )
    yield from pack_linear(source.name, weight, bias, weights, threads, four_bits=four_bits)


def take_rows(
    arrays: Mapping[str, Array], name: str, rows: NDArray[np.int64], inputs: int
) -> dict[str, Array]:
    """The arrays of a linear that has only these output channels of `name`, bit for bit."""
    panel, weights = _native.PANEL, arrays[f"{name}.weights"]
    padded = np.concatenate([rows, np.zeros(-len(rows) % panel, np.int64)])
    places, lanes = padded // panel, padded % panel
    # Input channels stand in pairs where they are int8, one by one in fp32.
    together = 2 if weights.dtype == np.int8 else 1
    split = weights.reshape(-1, inputs // together, panel, together)[places, :, lanes]
    packed = split.reshape(-1, panel, inputs // together, together).swapaxes(1, 2)
    taken = {"weights": np.ascontiguousarray(packed).reshape(-1)}
    for part in ("scale", "bias"):
        if f"{name}.{part}" in arrays:
            taken[part] = arrays[f"{name}.{part}"][padded]
    return taken
