"""Activations keep at least 12 bits beside int8 weights, in linears as wide as those of large models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medusa_decoding import _native
from medusa_decoding.engines.cpu.packed import pack_linear

from .random_models import ISAS, VOCABULARY, RandomModel, Texts, chain, random_model, shape_of

WIDTHS = [48, 264, 14_336, 28_672]


def wide_model(width: int, outlier: float) -> RandomModel:
    """No layers, only a norm, which makes every 300th channel large, and the projection to tokens."""
    model = random_model(shape_of(layers=0, hidden_size=width), seed=width)
    random = np.random.default_rng(width)
    norm = 1 + 0.2 * random.standard_normal(width)
    norm[:: min(300, width // 3)] *= outlier
    model.tensors["model.norm.weight"] = norm.astype(np.float32)
    return model


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("outlier", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_wide_linear_keeps_twelve_bits_of_its_activations(width: int, outlier: float, isa: str) -> None:
    engine = wide_model(width, outlier).engine("int8", isa=isa)
    weights = unpacked(engine.arrays, "head", VOCABULARY, width)
    texts = Texts(engine)
    verified = engine.forward(texts.rows({texts.open(): chain(range(VOCABULARY))}))
    hidden = np.stack([verified.hidden(row) for row in range(VOCABULARY)]).astype(np.float64)
    found = np.stack([verified.logits(row) for row in range(VOCABULARY)])
    assert error_of(found, hidden @ weights.T) < 2.0**-12
    # What eight bits would lose, so that the bound says something.
    steps = np.abs(hidden).max(-1, keepdims=True) / 127
    assert error_of((np.round(hidden / steps) * steps) @ weights.T, hidden @ weights.T) > 2.0**-9


def error_of(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Root mean square of the error, as a part of the result's."""
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


@pytest.mark.parametrize("threads", [1, 3])
def test_int8_weights_are_within_half_a_step(threads: int) -> None:
    random = np.random.default_rng(0)
    weight = (random.standard_normal((37, 48)) * random.lognormal(size=(37, 1))).astype(np.float32)
    weight[5] = 0.0
    arrays = dict(pack_linear("one", weight, None, "int8", threads))
    assert arrays["one.weights"].dtype == np.int8 and np.abs(arrays["one.weights"].astype(int)).max() == 127
    steps = np.abs(weight).max(-1) / 127
    np.testing.assert_array_equal(arrays["one.scale"][:37], steps.astype(np.float32))
    assert (np.abs(unpacked(arrays, "one", 37, 48) - weight) <= steps[:, None] * 0.50001).all()


def test_packed_weights_stand_in_panels() -> None:
    weight = np.arange(37 * 48, dtype=np.float32).reshape(37, 48)
    arrays = dict(pack_linear("one", weight, np.ones(37, np.float32), "fp32", 1))
    assert arrays.keys() == {"one.weights", "one.bias"}
    panels = arrays["one.weights"].reshape(-1, 48, _native.PANEL)
    found = panels.transpose(0, 2, 1).reshape(-1, 48)
    np.testing.assert_array_equal(found[:37], weight)
    assert not found[37:].any() and arrays["one.bias"].tolist() == [1] * 37 + [0] * 11


def unpacked(arrays: dict[str, Any], name: str, outputs: int, inputs: int) -> NDArray[np.float64]:
    """(outputs, inputs) what the int8 weights stand for."""
    pairs = arrays[f"{name}.weights"].reshape(-1, inputs // 2, _native.PANEL, 2)
    whole = pairs.transpose(0, 2, 1, 3).reshape(-1, inputs).astype(np.float64)
    return (whole * arrays[f"{name}.scale"][:, None])[:outputs]
