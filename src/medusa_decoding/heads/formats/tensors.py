"""Read and write the files that formats are made of, as plain data: nothing read here can run code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.heads.state import StateDict

JsonObject = dict[str, Any]


def read_json(path: Path) -> JsonObject:
    """Return the object in a JSON file; raises UserError if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}. Check the folder of the heads.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch or save the heads again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object: fetch or save the heads again.")
    return content


def write_json(path: Path, content: JsonObject) -> None:
    """Write an object as indented JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_safetensors(path: Path, names: Iterable[str] | None = None) -> StateDict:
    """Return the tensors `names` (None: all) of a safetensors file; raises UserError if it is damaged."""
    if not path.is_file():
        raise UserError(f"{path} is missing: fetch or save the heads again.")
    try:
        if names is None:
            return dict(load_file(path))
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def safetensors_names(path: Path) -> list[str]:
    """Return the names of the tensors without reading them; raises UserError if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def write_safetensors(path: Path, state: StateDict) -> None:
    """Write tensors; the `format` note is what transformers and the engines look for."""
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def read_pickled_tensors(path: Path) -> StateDict:
    """Return the tensors of a `.pt` file, read with `weights_only=True`: such a file is a pickle.

    Raises UserError when it is damaged, holds anything but named tensors, or tries to run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises half a dozen types here, by kind of damage and by version.
        raise UserError(
            f"{path} is damaged or holds more than plain tensors, and is not opened any further:"
            " ask for the heads as .safetensors."
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()
    ):
        raise UserError(f"{path} holds more than named tensors: ask for the heads as .safetensors.")
    return content


def count_of(state: StateDict, pattern: str) -> int:
    """Return one more than the highest number that `pattern`'s group finds in the names; 0 for none."""
    found = (re.fullmatch(pattern, name) for name in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} is damaged ({reason}): fetch or save the heads again.")
