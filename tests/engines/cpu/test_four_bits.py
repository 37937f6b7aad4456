"""int8 weights in 4 bits: where they are kept so, and that they stay what they are."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medusa_decoding import _native
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.engines.cpu.packed import pack_model

from .random_models import alone, random_model, shape_of

Q = gguf.GGMLQuantizationType
SHAPE = shape_of(hidden_size=64, intermediate_size=96)


def unpacked(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """By the formula of native/packing.h, in the order of int8 weights."""
    groups = packed.reshape(-1, 320)
    lines = groups[:, :64].copy().view(np.int16).repeat(2, axis=1).reshape(-1, 2, 1, 32)
    words = groups[:, 64:].copy().view(np.uint16).reshape(-1, 4, 1, 32)
    codes = (words >> np.arange(0, 16, 4, dtype=np.uint16).reshape(1, 1, 4, 1) & 15).reshape(-1, 16, 32)
    values = codes.astype(np.int16) * lines[:, 0] + lines[:, 1]  # wraps, as 16 bits do
    return (values >> 8).astype(np.int8).reshape(-1)


def off(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """How far each weight is from the int8 one."""
    packed, scale = _native.pack(weights, "int4", 2)
    expected, same_scale = _native.pack(weights, "int8", 2)
    assert scale.tobytes() == same_scale.tobytes()
    assert packed.nbytes * 8 == expected.nbytes * 5
    return unpacked(packed).astype(np.int64) - expected


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    outputs=st.integers(1, 40),
    groups=st.integers(1, 9),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
    values=st.integers(1, 16),
)
def test_the_weights_are_the_int8_ones(
    seed: int, outputs: int, groups: int, spread: float, values: int
) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, values, (outputs, groups, 32))
    step = random.standard_normal((outputs, groups, 1)) * np.exp(
        spread * random.standard_normal((outputs, 1, 1))
    )
    start = step * random.uniform(-16, 1, (outputs, groups, 1))
    weights = (step * codes + start).astype(np.float32).reshape(outputs, -1)
    wrong = off(weights)
    # One off at most, and downwards: 127 and one more would not be a byte.
    assert wrong.min() >= -1 and wrong.max() <= 0
    assert np.count_nonzero(wrong) <= 0.002 * wrong.size + 32


def test_hardly_any_weight_is_off_and_none_upwards() -> None:
    random = np.random.default_rng(0)
    raw = quantize(random.standard_normal((2048, 2048)).astype(np.float32), Q.Q4_1)
    found = off(dequantize(raw, Q.Q4_1))
    # Some groups have no step and start that give all their weights.
    assert 0 < np.count_nonzero(found) < 1e-4 * found.size
    assert (found.min(), found.max()) == (-1, 0)


@pytest.mark.parametrize("kind", [Q.Q4_0, Q.Q4_1, Q.Q4_K])
def test_four_bit_files_are_kept_in_four_bits(kind: Q) -> None:
    random = np.random.default_rng(0)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (20, 512 // block, size), np.uint8)
    raw[:, :, 1] = 0x2C  # two scales of some size, in fp16
    raw[:, :, 3] = 0x2C if kind != Q.Q4_0 else raw[:, :, 3]
    weights = dequantize(raw.reshape(20, -1), kind)
    assert np.isfinite(weights).all() and np.unique(weights).size > 20
    assert np.count_nonzero(off(weights)) <= 32


@pytest.mark.parametrize("kind", [Q.Q5_0, Q.Q8_0])
def test_finer_files_are_not(kind: Q) -> None:
    weights = np.random.default_rng(0).standard_normal((20, 512)).astype(np.float32)
    assert _native.pack(dequantize(quantize(weights, kind), kind), "int4", 1) is None


@pytest.mark.parametrize("value", [0.013, np.nan, np.inf])
def test_one_weight_between_is_enough_to_refuse(value: float) -> None:
    weights = np.tile(np.arange(16, dtype=np.float32), (17, 4))
    assert _native.pack(weights, "int4", 1) is not None
    weights[16, 40] = value
    assert _native.pack(weights, "int4", 1) is None


def test_groups_have_to_be_whole() -> None:
    assert _native.pack(np.ones((4, 40), np.float32), "int4", 1) is None


def test_groups_of_one_value_and_of_zeros() -> None:
    weights = np.zeros((3, 64), np.float32)
    weights[1, :32] = -2.5
    weights[2, 7] = 1e-41
    assert not off(weights).any()


def dtypes(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: str(array.dtype) for name, array in arrays.items() if name.endswith(".weights")}


def test_layers_are_kept_so_and_heads_are_not() -> None:
    coarse, fine = (random_model(SHAPE, coarse=value) for value in (True, False))
    kept = dtypes(pack_model(coarse, "int8", 1))
    assert {dtype for name, dtype in kept.items() if name.startswith("layers")} == {"uint8"}
    assert {dtype for name, dtype in kept.items() if not name.startswith("layers")} == {"int8"}
    assert set(dtypes(pack_model(fine, "int8", 1)).values()) == {"int8"}
    assert set(dtypes(pack_model(coarse, "fp32", 1)).values()) == {"float32"}


def test_one_linear_that_cannot_changes_no_other() -> None:
    model = random_model(SHAPE, coarse=True)
    model.tensors["model.layers.1.self_attn.v_proj.weight"][3, 3] += 0.1
    kept = dtypes(pack_model(model, "int8", 1))
    assert [name for name, dtype in kept.items() if "layers" in name and dtype == "int8"] == [
        "layers.1.qkv.weights"
    ]


def test_the_engine_says_so_and_reads_less() -> None:
    coarse, fine = (
        random_model(SHAPE, coarse=value).engine("int8", isa="portable") for value in (True, False)
    )
    assert (coarse.description, fine.description) == ("cpu-int8-in-4-bits-portable", "cpu-int8-portable")
    assert coarse.weights == "int8"
    assert 5 / 8 * fine.weight_bytes < coarse.weight_bytes < 0.8 * fine.weight_bytes
    assert coarse.read_bandwidth() > 0


def test_the_same_bits_as_from_int8() -> None:
    """Where no weight is off, as here, nothing else may differ either."""
    model = random_model(SHAPE, coarse=True)
    arrays = pack_model(model, "int8", 1)
    plain = dict(arrays)
    for name, array in arrays.items():
        if array.dtype == np.uint8:
            plain[name] = unpacked(array)
    text = list(range(30))
    assert alone(CpuEngine(SHAPE, arrays, 1), text) == alone(CpuEngine(SHAPE, plain, 1), text)


def test_packed_weights_of_another_size_are_refused() -> None:
    arrays = pack_model(random_model(SHAPE, coarse=True), "int8", 1)
    with pytest.raises(ValueError, match="size of the model"):
        CpuEngine(SHAPE, arrays | {"layers.0.down.weights": arrays["layers.0.down.weights"][:-320]}, 1)
