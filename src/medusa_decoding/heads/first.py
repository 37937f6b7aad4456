"""The first K of a set of heads: heads are trained on their own, so fewer of them are heads too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import CalibrationFit, HeadsConfig

Tensor = TypeVar("Tensor")


def first_heads(
    config: HeadsConfig, state: Mapping[str, Tensor], count: int
) -> tuple[HeadsConfig, dict[str, Tensor]]:
    """Config and tensors of the first `count` heads, which guess what they guessed among all.

    state: torch or NumPy tensors under the names of `heads.state`; those that stay are not copied. Raises
    UserError where there are not so many heads, or none are asked for.
    """
    if not 1 <= count <= config.num_heads:
        raise UserError(f"there are {config.num_heads} heads, not {count}: ask for 1 to {config.num_heads}")
    fits = config.path_calibration
    cut = config.model_copy(
        update={
            "num_heads": count,
            "calibration": None if config.calibration is None else config.calibration[:count],
            "path_calibration": None if fits is None else [_first(fit, count) for fit in fits],
        }
    )
    return cut, {name: state[name] for name, _ in cut.expected_shapes()}


def _first(fit: CalibrationFit, count: int) -> CalibrationFit:
    return fit.model_copy(update={"slopes": fit.slopes[:count], "misses": fit.misses[:count]})
