"""A Llama-like model in a GGUF file, for the CPU engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medusa_decoding.engines.cpu.shape import LlamaShape
from medusa_decoding.models.content_key import key_of
from medusa_decoding.models.gguf_fields import common_fields
from medusa_decoding.models.gguf_keys import Keys
from medusa_decoding.models.gguf_names import checked_names, halves
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.llama_config import shape_of
from medusa_decoding.models.llama_weights import expected_weights
from medusa_decoding.models.source import Source
from medusa_decoding.models.unsupported import Unsupported

# Mistral and SmolLM2 call themselves "llama" in GGUF.
_ARCHITECTURES = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class GgufWeights:
    """The weights of one file; `names` has their names there by those of transformers."""

    file: GgufFile
    shape: LlamaShape
    names: Mapping[str, str]

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """The whole weight."""
        shape = self.file.shape(self.names[name])
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        return np.ascontiguousarray(self._rows(name, rows).reshape(shape), np.float32)

    def first(self, name: str, count: int) -> npt.NDArray[np.float32]:
        """Its first `count` values, flat; all, if there are fewer."""
        shape = self.file.shape(self.names[name])
        rows = -(-count // shape[-1])
        # Rows move inside their head, so heads are taken whole.
        rows = -(-rows // self.shape.head_dim) * self.shape.head_dim
        whole = int(np.prod(shape[:-1], dtype=np.int64))
        return self._rows(name, min(rows, whole)).reshape(-1)[:count].astype(np.float32)

    def _rows(self, name: str, count: int) -> npt.NDArray[np.float32]:
        values = self.file.rows(self.names[name], count)
        if self.shape.architecture == "llama" and (".q_proj.weight" in name or ".k_proj.weight" in name):
            values = halves(values, count // self.shape.head_dim)
        return values


def read(source: Source) -> tuple[LlamaShape, GgufWeights, str]:
    """Shape, weights and key of the model in `source`, a GGUF file.

    Raises:
        Unsupported: the CPU engine has no such model.
        UserError: the file is damaged.
    """
    assert source.path is not None
    file = GgufFile(source.path)
    shape = _shape(file)
    biased = "blk.0.attn_q.bias" in file.tensors or shape.architecture == "qwen2"
    names = checked_names(file, shape.architecture, expected_weights(shape, biased=biased))
    key = source.alias.sha256 if source.alias is not None else key_of([source.path])
    return shape, GgufWeights(file, shape, {target: name for name, target in names.items()}), key


def _shape(file: GgufFile) -> LlamaShape:
    keys = Keys(file)
    if keys.architecture not in _ARCHITECTURES:
        raise Unsupported(f"architecture {keys.architecture!r}")
    for tensor, reason in (
        ("attn_output.bias", "a bias behind its attention"),
        ("ffn_up.bias", "biases in its feed-forward layers"),
    ):
        if f"blk.0.{tensor}" in file.tensors:
            raise Unsupported(reason)
    return shape_of(common_fields(keys) | {"model_type": keys.architecture}, file.path.name)
