"""Rotary frequencies of a config, as transformers computes them, in NumPy.

Powers are rounded correctly; torch's are now and then one unit in the last place beside that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from medusa_decoding.models.config_fields import Fields
from medusa_decoding.models.unsupported import Unsupported

Frequencies = npt.NDArray[np.float32]
_ONE = np.float32(1.0)


def rope_of(config: Fields, head_dim: int) -> tuple[tuple[float, ...], float]:
    """Inverse frequencies (head_dim / 2 of them, float32) and the factor of sines and cosines.

    Configs of transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`) are read.

    Raises:
        Unsupported: a kind of scaling that depends on the text's length, or heads that are rotated in part.
        UserError: a value is missing or makes no sense.
    """
    rope = parameters_of(config)
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind not in _SCALINGS:
        raise Unsupported(f"rotary positions of type {kind!r}")
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise Unsupported("heads that are rotated in part")
    with np.errstate(all="ignore"):
        frequencies, amplitude = _SCALINGS[kind](rope, _powers(rope, head_dim))
    if not np.all(np.isfinite(frequencies)) or not math.isfinite(amplitude):
        raise config.wrong("rope_parameters")
    return tuple(frequencies.tolist()), amplitude


def parameters_of(config: Fields) -> Fields:
    """What the config says of rotary positions, defaults of the whole config filled in."""
    given = config.table("rope_scaling") or config.table("rope_parameters")
    if any(isinstance(value, dict) for value in given.values()):
        raise Unsupported("rotary positions that differ from layer to layer")
    common = {key: config.values[key] for key in ("rope_theta", "partial_rotary_factor") if key in config}
    longest = config.positive("max_position_embeddings")
    filled = {"rope_theta": 10000.0, "original_max_position_embeddings": longest, **common, **given}
    if "original_max_position_embeddings" in config:
        filled["original_max_position_embeddings"] = config.positive("original_max_position_embeddings")
    return Fields({**filled, "max_position_embeddings": longest}, config.name)


def _powers(rope: Fields, head_dim: int) -> Frequencies:
    """Base to the power of each pair's share of the head: the reciprocal of its plain frequency."""
    base = rope.number("rope_theta")
    if base <= 0.0:
        raise rope.wrong("rope_theta")
    shares = np.arange(0, head_dim, 2).astype(np.float32) / np.float32(head_dim)
    return (np.float64(base) ** shares.astype(np.float64)).astype(np.float32)


def _default(rope: Fields, powers: Frequencies) -> tuple[Frequencies, float]:
    return _ONE / powers, 1.0


def _linear(rope: Fields, powers: Frequencies) -> tuple[Frequencies, float]:
    return _ONE / powers / np.float32(_factor(rope)), 1.0


def _llama3(rope: Fields, powers: Frequencies) -> tuple[Frequencies, float]:
    """Llama 3.1: long waves are stretched by the factor, short ones stay, with a ramp between."""
    factor = np.float32(_factor(rope))
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    original = rope.positive("original_max_position_embeddings")
    if low <= 0.0 or high <= low:
        raise rope.wrong("high_freq_factor")
    plain = _ONE / powers
    waves = np.float32(2 * math.pi) / plain
    ramp = (np.float32(original) / waves - np.float32(low)) / np.float32(high - low)
    between = (_ONE - ramp) * plain / factor + ramp * plain
    long = waves > np.float32(original / low)
    short = waves < np.float32(original / high)
    return np.where(long, plain / factor, np.where(short, plain, between)), 1.0


def _yarn(rope: Fields, powers: Frequencies) -> tuple[Frequencies, float]:
    """YaRN: pairs that turn often over the original context stay, slow ones are stretched by the factor."""
    original = rope.positive("original_max_position_embeddings")
    factor = rope.number("factor", rope.positive("max_position_embeddings") / original)
    if factor <= 0.0:
        raise rope.wrong("factor")
    low, high = _yarn_bounds(rope, 2 * len(powers), original)
    ramp = (np.arange(len(powers), dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = _ONE - np.clip(ramp, np.float32(0.0), _ONE)
    stretched = _ONE / (np.float32(factor) * powers)
    return stretched * (_ONE - kept) + _ONE / powers * kept, _yarn_amplitude(rope, factor)


def _yarn_bounds(rope: Fields, width: int, original: int) -> tuple[float, float]:
    """Between which pairs the ramp runs."""
    base = rope.number("rope_theta")
    # Zero and null stand for the defaults.
    fast, slow = rope.number("beta_fast", 0.0) or 32.0, rope.number("beta_slow", 0.0) or 1.0
    if base == 1.0 or fast <= 0.0 or slow <= 0.0:
        raise rope.wrong("beta_fast")
    low, high = (
        width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (fast, slow)
    )
    if rope.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    return low, high + 0.001 if low == high else high


def _yarn_amplitude(rope: Fields, factor: float) -> float:
    if "attention_factor" in rope:
        return rope.number("attention_factor")
    scale, scale_all = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    if scale and scale_all:
        return _yarn_scale(factor, scale) / _yarn_scale(factor, scale_all)
    return _yarn_scale(factor, 1.0)


def _yarn_scale(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * scale * math.log(factor) + 1.0


def _factor(rope: Fields) -> float:
    factor = rope.number("factor")
    if factor <= 0.0:
        raise rope.wrong("factor")
    return factor


_SCALINGS: dict[str, Callable[[Fields, Frequencies], tuple[Frequencies, float]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
