"""Sizes of base models, to tell what training costs before anything is downloaded."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.engines.cpu.shape import LlamaShape
from medusa_decoding.errors import UserError
from medusa_decoding.models import Source, resolve
from medusa_decoding.models.hub import folder_of
from medusa_decoding.models.json_file import read_json
from medusa_decoding.models.llama_config import shape_of
from medusa_decoding.models.unsupported import Unsupported


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder of the Llama family; biases and norms are too small to count."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    tied: bool

    @property
    def layer_parameters(self) -> int:
        """Weights in all layers: what a token is multiplied with before the lm_head."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def linear_widths(self) -> int:
        """Inputs and outputs of a layer's linear parts, summed: LoRA's parameters per rank and layer."""
        width, queries, keys = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = (width + queries) + 2 * (width + keys) + (queries + width)
        return attention + 3 * (width + self.intermediate_size)

    @property
    def parameters(self) -> int:
        """All weights, embedding and lm_head included."""
        return self.layer_parameters + self.vocabulary_size * self.hidden_size * (1 if self.tied else 2)


SHAPES = {
    "smollm2": ModelShape(30, 576, 1536, 9, 3, 64, 49152, True),
    "qwen-coder": ModelShape(24, 896, 4864, 14, 2, 64, 151936, True),
    "llama-3.2-1b": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, True),
    "qwen2.5-7b": ModelShape(28, 3584, 18944, 28, 4, 128, 152064, False),
    "mistral-7b": ModelShape(32, 4096, 14336, 32, 8, 128, 32768, False),
    "llama-3.1-8b": ModelShape(32, 4096, 14336, 32, 8, 128, 128256, False),
    "qwen3-8b": ModelShape(36, 4096, 12288, 32, 8, 128, 151936, False),
    "qwen2.5-32b": ModelShape(64, 5120, 27648, 40, 8, 128, 152064, False),
    "llama-3.1-70b": ModelShape(80, 8192, 28672, 64, 8, 128, 128256, False),
}


def shape_named(model: str) -> ModelShape:
    """The shape of a model in the table, of a `config.json`, or of whatever else `resolve` knows.

    Raises UserError where there is no such model, or none of the Llama family.
    """
    if model.lower() in SHAPES:
        return SHAPES[model.lower()]
    path = Path(model).expanduser()
    try:
        if path.name == "config.json" and path.is_file():
            return _of(shape_of(read_json(path, model), model))
        return _of(_shape_of_source(resolve(model)))
    except Unsupported as error:
        raise UserError(
            f"a dry run knows models of the Llama family only, and {model} has {error.reason};"
            f" give one of similar size: {', '.join(SHAPES)}"
        ) from error
    except UserError as error:
        similar = difflib.get_close_matches(model.lower(), SHAPES, n=1, cutoff=0.7)
        hint = f"did you mean {similar[0]}?" if similar else f"a dry run also knows {', '.join(SHAPES)}"
        raise UserError(f"{error}; {hint}") from error


def _shape_of_source(source: Source) -> LlamaShape:
    if source.kind == "gguf":
        from medusa_decoding.models.checkpoint import open_checkpoint

        return open_checkpoint(source).shape
    folder = folder_of(source, ("config.json",))
    return shape_of(read_json(folder / "config.json", source.name), source.name)


def _of(shape: LlamaShape) -> ModelShape:
    return ModelShape(
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocabulary_size=shape.vocabulary_size,
        tied=shape.tied,
    )
