"""Rotary position scaling as a GGUF file says it, in the words of a transformers config."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_keys import Keys
from medusa_decoding.models.gguf_reader import Array

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_YARN_OPTIONS = {
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
    "attention_factor": "rope.scaling.attn_factor",
}


def rope_parameters(keys: Keys, head_width: int) -> dict[str, Any]:
    """`rope_parameters` of the config: base frequency, rotated part of each head and scaling.

    Raises:
        UserError: the file asks for a scaling that is not known here, or its factors make no sense.
    """
    base = keys.number("rope.freq_base", 10000.0)
    rotated = keys.positive("rope.dimension_count", head_width)
    if base <= 0 or rotated > head_width:
        raise keys.file.damaged("rotary positions that make no sense")
    parameters: dict[str, Any] = {"rope_theta": base, "rope_type": "default"}
    if rotated != head_width:
        parameters["partial_rotary_factor"] = rotated / head_width
    return parameters | _scaling(keys, base, rotated // 2)


def _scaling(keys: Keys, base: float, frequencies: int) -> dict[str, Any]:
    if "rope_freqs.weight" in keys.file.tensors:
        return _from_divisors(keys, _divisors(keys, "rope_freqs.weight", frequencies), base)
    if "rope_factors_short.weight" in keys.file.tensors:
        return _long_rope(keys, frequencies)
    # Old files give the linear factor without a type.
    kind = keys.text("rope.scaling.type", "linear" if "rope.scale_linear" in keys else "none")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(keys, factor)
    raise UserError(
        f"{keys.file.path.name}: rotary scaling {kind!r} is not read from GGUF; "
        "give the model's safetensors folder or Hub id instead"
    )


def _yarn(keys: Keys, factor: float) -> dict[str, Any]:
    original = keys.positive("rope.scaling.original_context_length", keys.positive("context_length"))
    options = {name: keys.number(key) for name, key in _YARN_OPTIONS.items() if key in keys}
    if "attention_factor" in options:
        # llama.cpp multiplies its own value by it, transformers takes it instead.
        options["attention_factor"] *= 1.0 + 0.1 * math.log(factor)
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **options}


def _long_rope(keys: Keys, frequencies: int) -> dict[str, Any]:
    """Phi-3's: one list of divisors up to the original context, another beyond."""
    parameters: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": _divisors(keys, "rope_factors_short.weight", frequencies).tolist(),
        "long_factor": _divisors(keys, "rope_factors_long.weight", frequencies).tolist(),
        "original_max_position_embeddings": keys.positive("rope.scaling.original_context_length"),
    }
    if "rope.scaling.attn_factor" in keys:
        parameters["attention_factor"] = keys.number("rope.scaling.attn_factor")
    return parameters


def _from_divisors(keys: Keys, divisors: Array, base: float) -> dict[str, Any]:
    """One divisor per frequency: Llama 3.1's own are recognised, others become a "longrope" that never
    switches.
    """
    factor = round(float(divisors.max()), 4)
    if factor > 1.0 and np.allclose(divisors, _llama3_divisors(len(divisors), base, factor), rtol=1e-4):
        return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
    return {
        "rope_type": "longrope",
        "short_factor": divisors.tolist(),
        "long_factor": divisors.tolist(),
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": keys.positive("context_length"),
    }


def _llama3_divisors(count: int, base: float, factor: float) -> Array:
    """The divisors of Llama 3.1: long waves by `factor`, short ones by one, a ramp between."""
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    wave = 2 * math.pi * base ** (np.arange(count) / count)
    ramp = np.clip((_LLAMA3["original_max_position_embeddings"] / wave - low) / (high - low), 0.0, 1.0)
    divisors: Array = 1.0 / ((1 - ramp) / factor + ramp)
    return divisors


def _divisors(keys: Keys, tensor: str, count: int) -> Array:
    values = keys.file.tensor(tensor).astype(np.float64).reshape(-1)
    if len(values) != count or not np.all(np.isfinite(values)) or values.min() <= 0:
        raise keys.file.damaged(f"the rotary factors in {tensor!r} make no sense")
    return values
