"""Heads as NumPy arrays: what engines without torch take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import CONFIG_FILE, HeadsConfig, read_config
from medusa_decoding.heads.location import WEIGHTS_FILE, folder_of

Arrays = dict[str, NDArray[Any]]


def read_arrays(location: str | Path) -> tuple[HeadsConfig, Arrays]:
    """Config and tensors of heads in any layout, from a folder or the Hub; weights as float32.

    Names are those of `heads.state`. Torch is imported only for layouts and types that NumPy cannot read.
    Raises UserError as `from_pretrained` does.
    """
    folder = folder_of(location)
    if (folder / CONFIG_FILE).is_file():
        found = _read_own(folder)
        if found is not None:
            return found
    from medusa_decoding.heads.pretrained import from_pretrained
    from medusa_decoding.heads.state import state_of

    heads = from_pretrained(folder)
    return heads.config, {name: tensor.numpy() for name, tensor in state_of(heads).items()}


def check_fit(config: HeadsConfig, hidden_size: int, vocabulary_size: int) -> None:
    """Raise UserError where the heads were made for a model of other sizes."""
    rows = config.vocabulary_size
    if config.hidden_size == hidden_size and rows in (None, vocabulary_size):
        return
    base = f" ({config.base_model})" if config.base_model else ""
    raise UserError(
        f"The heads do not fit this base model: they were made for an lm_head of shape ({rows or 'any'},"
        f" {config.hidden_size}), and the model's is ({vocabulary_size}, {hidden_size}). Use the base model"
        f" they were trained for{base}, or train heads for this one with `medusa train`."
    )


def _read_own(folder: Path) -> tuple[HeadsConfig, Arrays] | None:
    """This project's own layout in types that NumPy knows; None for anything else, faults included."""
    from safetensors import SafetensorError, safe_open

    config = read_config(folder / CONFIG_FILE)
    arrays: Arrays = {}
    try:
        with safe_open(folder / WEIGHTS_FILE, "np") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary
                if file.get_slice(name).get_dtype() not in ("F16", "F32", "I64"):
                    return None
                arrays[name] = file.get_tensor(name)
    except (OSError, SafetensorError):
        return None
    if not _is_complete(config, arrays):
        return None
    return config, {
        name: array if name == "token_map" else np.ascontiguousarray(array, np.float32)
        for name, array in arrays.items()
    }


def _is_complete(config: HeadsConfig, arrays: Arrays) -> bool:
    expected = dict(config.expected_shapes())
    if expected != {name: array.shape for name, array in arrays.items()}:
        return False
    tokens = arrays.get("token_map")
    if tokens is None:
        return True
    return (
        tokens.dtype == np.int64
        and len(np.unique(tokens)) == len(tokens)
        and bool((tokens >= 0).all() and (tokens < (config.vocabulary_size or 0)).all())
    )
