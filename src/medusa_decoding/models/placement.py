"""Where a model runs and in which numbers: device, dtype and quantisation by their names."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from medusa_decoding.errors import UserError

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def device_named(device: str) -> torch.device:
    """The device; "auto" is CUDA if there is one, else the CPU.

    Raises:
        UserError: the name means nothing, or there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"'{device}' is no device; use auto, cpu, cuda or cuda:N") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {device} here; use --device cpu")
    return place


def dtype_named(dtype: str, place: torch.device, config: Any) -> torch.dtype:
    """The dtype; "auto" is float32 on a CPU, else what `config` says if it is a short one, else bfloat16.

    Raises:
        UserError: the name means nothing.
    """
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise UserError(f"'{dtype}' is no dtype; use auto, {', '.join(DTYPES)}")
    if place.type == "cpu":
        return torch.float32
    saved = getattr(config, "dtype", None)
    return saved if saved in (torch.bfloat16, torch.float16) else torch.bfloat16


def weight_of(module: torch.nn.Module, name: str) -> Tensor:
    """A weight of a module, without its gradient: fetched where a device map keeps it elsewhere until it is
    used.
    """
    weight: Tensor = getattr(module, name)
    if not weight.is_meta:
        return weight.detach()
    from accelerate.utils import align_module_device

    with align_module_device(module, "cpu"):
        return cast(Tensor, getattr(module, name)).detach()


def quantization_named(quantization: str) -> Any:
    """The transformers config that loads weights in 4 or 8 bits by bitsandbytes.

    Raises:
        UserError: the name means nothing, or bitsandbytes is not installed.
    """
    if quantization not in ("4bit", "8bit"):
        raise UserError(f"'{quantization}' is no quantisation; use 4bit or 8bit")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UserError(
            "quantisation needs bitsandbytes: pip install 'medusa-decoding[quantization]'"
        ) from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=quantization == "4bit", load_in_8bit=quantization == "8bit")
