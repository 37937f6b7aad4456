"""What the CPU engine has to know of a Llama-like model besides its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LlamaShape:
    """Sizes and constants of a decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3).

    architecture: model type, as transformers names it. context_length: positions the model was made for.
    window: a position sees this many positions, itself included; None: all before it.
    inverse_frequencies: (head_dim / 2,) of the rotary embedding, scaling already applied.
    rope_amplitude: factor of its sines and cosines (1 but for YaRN).
    Rotated pairs are the halves of a head, as in transformers.
    """

    architecture: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    norm_epsilon: float
    context_length: int
    inverse_frequencies: tuple[float, ...]
    rope_amplitude: float = 1.0
    window: int | None = None
    tied: bool = False
    """Whether the embedding is the output projection too."""
