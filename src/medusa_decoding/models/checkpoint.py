"""A base model's shape and weights without torch, for the CPU engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medusa_decoding.engines.cpu.shape import LlamaShape
from medusa_decoding.models.fingerprint import PREFIX, fingerprint_of
from medusa_decoding.models.llama_weights import PROJECTION
from medusa_decoding.models.source import Source
from medusa_decoding.models.unsupported import Unsupported

__all__ = ["Checkpoint", "Unsupported", "Weights", "open_checkpoint"]

Values = npt.NDArray[np.float32]


class Weights(Protocol):
    """Where weights are read from; names as in transformers."""

    def tensor(self, name: str) -> Values:
        """The whole weight, C-contiguous."""
        ...

    def first(self, name: str, count: int) -> Values:
        """Its first `count` values, flat; all, if there are fewer."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A Llama-like model on disk, every weight's presence and shape checked, none of them in memory yet.

    Attributes:
        shape: its sizes and constants.
        names: the weights it has, by the names of transformers; `lm_head.weight` only if it is not tied to
            the embedding. Biases of query, key and value and the norms of query and key are there or not.
        key: hexadecimal digits that stand for what the source holds, for caches on disk.
        weights: where they are read from.
    """

    shape: LlamaShape
    names: frozenset[str]
    key: str
    weights: Weights

    def tensor(self, name: str) -> Values:
        """The weight `name`, one of `names`, in float32, outputs first, C-contiguous; it may be read-only.

        Raises:
            UserError: it is quantised in a way that cannot be read.
        """
        return self.weights.tensor(name)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the weights, the same as the loaded model's."""
        named = self.names - {PROJECTION}
        return fingerprint_of((name, self.weights.first(name, PREFIX)) for name in named)


def open_checkpoint(source: Source) -> Checkpoint:
    """The model of `source`; weights of a Hub id are downloaded unless they are cached.

    Args:
        source: what `resolve` returned.

    Raises:
        Unsupported: the CPU engine cannot run this model; the torch engine may.
        UserError: the model is damaged or cannot be had.
    """
    if source.kind == "gguf":
        from medusa_decoding.models import checkpoint_gguf

        shape, weights, key = checkpoint_gguf.read(source)
        return _checkpoint(shape, weights.names, key, weights)
    from medusa_decoding.models import checkpoint_folder

    shape, found, key = checkpoint_folder.read(source)
    return _checkpoint(shape, found.files, key, found)


def _checkpoint(shape: LlamaShape, names: Mapping[str, object], key: str, weights: Weights) -> Checkpoint:
    return Checkpoint(shape, frozenset(names), key, weights)
