"""A Llama-like model in a folder of safetensors files, for the CPU engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medusa_decoding.engines.cpu.shape import LlamaShape
from medusa_decoding.errors import UserError
from medusa_decoding.models.content_key import key_of
from medusa_decoding.models.hub import DESCRIPTIONS, WEIGHTS, folder_of
from medusa_decoding.models.json_file import read_json
from medusa_decoding.models.llama_config import shape_of
from medusa_decoding.models.llama_weights import EMBEDDING, PROJECTION, Shapes, expected_weights
from medusa_decoding.models.safetensors_file import FLOATS, SafetensorsFile
from medusa_decoding.models.source import Source
from medusa_decoding.models.unsupported import Unsupported

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class FolderWeights:
    """The weights of a folder; `files` says which file has which."""

    files: Mapping[str, SafetensorsFile]

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """The whole weight."""
        return self.files[name].tensor(name)

    def first(self, name: str, count: int) -> npt.NDArray[np.float32]:
        """Its first `count` values, flat; all, if there are fewer."""
        return self.files[name].first(name, count)


def read(source: Source) -> tuple[LlamaShape, FolderWeights, str]:
    """Shape, weights and key of the model in `source`, a folder or a Hub id.

    Raises:
        Unsupported: the CPU engine has no such model.
        UserError: it is damaged or cannot be had.
    """
    # The config comes first: weights that the CPU engine cannot use are left to others.
    folder = folder_of(source, DESCRIPTIONS)
    shape = shape_of(read_json(folder / "config.json", source.name), source.name)
    folder = folder_of(source, WEIGHTS)
    files = _files(folder, source.name)
    expected = _expected(shape, files, source.name)
    if shape.tied and PROJECTION in files and not _is_tied(files):
        # transformers does not tie where a config says so and the weights differ nevertheless.
        shape = replace(shape, tied=False)
        expected = _expected(shape, files, source.name)
    weights = FolderWeights({name: files[name] for name in expected})
    key = key_of([folder / "config.json", *sorted({file.path for file in weights.files.values()})])
    return shape, weights, key


def _files(folder: Path, name: str) -> dict[str, SafetensorsFile]:
    """Weight -> the file that has it; one file, or several with an index."""
    if (folder / _SINGLE).exists():
        file = SafetensorsFile(folder / _SINGLE)
        return dict.fromkeys(file.entries, file)
    if not (folder / _INDEX).exists():
        if list(folder.glob("pytorch_model*")):
            raise Unsupported("weights that are not in safetensors files")
        raise UserError(f"{name} has no {_SINGLE}; download it again")
    index = read_json(folder / _INDEX, name).get("weight_map")
    if not isinstance(index, dict) or not all(_is_file_name(value) for value in index.values()):
        raise UserError(f"{name} cannot be loaded ({_INDEX} names no files); download it again")
    opened = {value: SafetensorsFile(folder / value) for value in sorted(set(index.values()))}
    for weight, value in index.items():
        if weight not in opened[value].entries:
            raise opened[value].damaged(f"{weight!r} is missing")
    return {weight: opened[value] for weight, value in index.items()}


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value == Path(value).name and value not in ("", "..")


def _is_tied(files: Mapping[str, SafetensorsFile]) -> bool:
    """Whether the output projection that is there all the same is the embedding."""
    if files[PROJECTION].entries[PROJECTION].dtype not in FLOATS:
        return False
    embedding, projection = (files[name].tensor(name) for name in (EMBEDDING, PROJECTION))
    return np.array_equal(embedding, projection)


def _expected(shape: LlamaShape, files: Mapping[str, SafetensorsFile], name: str) -> Shapes:
    if EMBEDDING not in files and EMBEDDING.removeprefix("model.") in files:
        raise Unsupported("weights without their usual names")
    # A config that announces billions of layers shall not make a list of them.
    if shape.layers > len(files):
        raise _lacking(name, shape.layers - len(files), f"those of layer {shape.layers - 1}")
    expected = expected_weights(shape, biased=shape.architecture == "qwen2")
    missing = sorted(expected.keys() - files.keys())
    if missing:
        raise _lacking(name, len(missing), missing[0])
    for weight, wanted in expected.items():
        found = files[weight].entries[weight]
        if found.shape != wanted:
            raise files[weight].damaged(f"{weight!r} has shape {found.shape}, not {wanted}")
        if found.dtype not in FLOATS:
            raise Unsupported(f"weights of type {found.dtype}")
    return expected


def _lacking(name: str, count: int, example: str) -> UserError:
    return UserError(
        f"{name} lacks {count} of the model's weights ({example} among them); "
        "download it again, or give a causal language model"
    )
