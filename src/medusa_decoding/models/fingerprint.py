"""A short name for a base model's weights, to notice heads that were trained for others.

The rule needs NumPy only, so that weights read without torch get the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_SAMPLES = 8
PREFIX = 4096
"""Values of each weight, counted from its first, among which the samples lie."""
_STEP = 2.0**-12
_ELSEWHERE = b"elsewhere"


def fingerprint(model: PreTrainedModel) -> str:
    """Sixteen hexadecimal digits from a few values of every weight.

    Eight values from the first 4,096 of each weight are rounded to bfloat16 and to multiples of 2⁻¹², so the
    same weights give the same digits on any device, from a GGUF file or safetensors, as bfloat16, float32 or
    float64 (and float16, if they were bfloat16 or float16 at first). A fine-tune, a merged or attached
    adapter and another quantisation give other digits. It is no checksum: a change between the samples goes
    unseen.

    The output projection is left out, because some containers repeat the tied embedding there.
    """
    head = model.get_output_embeddings()
    skipped = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    embedding = model.get_input_embeddings().weight
    return fingerprint_of(
        (name, _beginning(model, name, parameter))
        for name, parameter in model.named_parameters()
        if parameter is embedding or id(parameter) not in skipped
    )


def fingerprint_of(beginnings: Iterable[tuple[str, npt.NDArray[Any] | None]]) -> str:
    """The same from (name, the first `PREFIX` values of the weight in float32, or all if there are fewer).

    Names are those of a transformers model, in any order, without the output projection; None stands for a
    weight whose values are not in memory.
    """
    digest = hashlib.sha256()
    for name, values in sorted(beginnings, key=lambda named: named[0]):
        digest.update(name.encode())
        digest.update(_ELSEWHERE if values is None else _sample(values))
    return digest.hexdigest()[:16]


def _beginning(model: PreTrainedModel, name: str, parameter: torch.Tensor) -> npt.NDArray[Any] | None:
    if parameter.is_meta:
        from medusa_decoding.models.placement import weight_of

        owner, _, own = name.rpartition(".")
        parameter = weight_of(model.get_submodule(owner), own)
    if parameter.is_meta:
        return None
    return parameter.detach().flatten()[:PREFIX].cpu().float().numpy()


def _sample(beginning: npt.NDArray[Any]) -> bytes:
    """Evenly spaced values, the first and the last among them, as 64-bit multiples of the step."""
    count = min(_SAMPLES, len(beginning))
    places = np.arange(count) * (len(beginning) - 1) // max(count - 1, 1)
    values = _as_bfloat16(beginning[places]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.rint(values / _STEP).astype("<i8").tobytes()


def _as_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Round float32 to the nearest bfloat16, ties to the even one."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), np.float32(np.nan), rounded.view(np.float32))
