"""Rotary position scaling as a GGUF file says it, in the words of a transformers config."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.models.gguf_config import Keys

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_parameters(keys: Keys, head_width: int) -> dict[str, Any]:
    """`rope_parameters` of the config: base frequency and scaling.

    Raises:
        UserError: the file asks for a scaling that is not known here.
    """
    base = keys.number("rope.freq_base", 10000.0)
    rotated = keys.integer("rope.dimension_count", head_width)
    parameters: dict[str, Any] = {"rope_theta": base, "rope_type": "default"}
    if rotated != head_width:
        parameters["partial_rotary_factor"] = rotated / head_width
    if "rope_freqs.weight" in keys.file.tensors:
        factors = keys.file.tensor("rope_freqs.weight").astype(np.float64).reshape(-1)
        return parameters | _from_factors(factors, base, keys.integer("context_length"))
    return parameters | _named_scaling(keys)


def _named_scaling(keys: Keys) -> dict[str, Any]:
    kind = keys.file.string(f"{keys.architecture}.rope.scaling.type", "none")
    # Old files give the linear factor without a type.
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    if kind == "none" and "rope.scale_linear" in keys:
        kind = "linear"
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(keys, factor)
    raise UserError(
        f"{keys.file.path.name}: rotary scaling '{kind}' is not read from GGUF; "
        "give the model's safetensors folder or Hub id instead"
    )


def _yarn(keys: Keys, factor: float) -> dict[str, Any]:
    original = keys.integer("rope.scaling.original_context_length", keys.integer("context_length"))
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}


def _from_factors(factors: np.ndarray[Any, Any], base: float, context: int) -> dict[str, Any]:
    """One divisor per frequency. Llama 3.1's own are recognised; others go into a "longrope" that never switches."""
    if not np.all(np.isfinite(factors)) or factors.min() <= 0:
        raise UserError("the file's rotary factors are damaged (not positive); download it again")
    factor = float(factors.max())
    if factor > 1.0 and np.allclose(factors, _llama3_factors(len(factors), base, factor), rtol=1e-4):
        return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
    values = factors.tolist()
    return {
        "rope_type": "longrope",
        "short_factor": values,
        "long_factor": values,
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": context,
    }


def _llama3_factors(count: int, base: float, factor: float) -> np.ndarray[Any, Any]:
    """The divisors of Llama 3.1: long waves by `factor`, short ones by one, a ramp between."""
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    wave = 2 * math.pi * base ** (np.arange(count) / count)
    ramp = np.clip((_LLAMA3["original_max_position_embeddings"] / wave - low) / (high - low), 0.0, 1.0)
    divisors: np.ndarray[Any, Any] = 1.0 / ((1 - ramp) / factor + ramp)
    return divisors
