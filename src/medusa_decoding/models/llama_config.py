"""The shape of a Llama-like model from its config in the words of transformers.

Values that a config leaves out are those of transformers' config classes.
"""

from __future__ import annotations

from typing import Any

from medusa_decoding.engines.cpu.shape import LlamaShape
from medusa_decoding.models.config_fields import Fields
from medusa_decoding.models.llama_rope import rope_of
from medusa_decoding.models.unsupported import Unsupported

_QWEN = {"max_position_embeddings": 32768, "num_key_value_heads": 32}
_MISTRAL = {"max_position_embeddings": 4096 * 32, "num_key_value_heads": 8}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {**_MISTRAL, "sliding_window": 4096},
    "qwen2": {**_QWEN, "sliding_window": 4096},
    "qwen3": {**_QWEN, "sliding_window": 4096, "head_dim": 128},
}
_WINDOWED = "sliding_attention"


def shape_of(config: dict[str, Any], name: str) -> LlamaShape:
    """The shape of the model that `config` describes; `name` is what the user called it.

    Raises:
        Unsupported: the CPU engine has no such model.
        UserError: a value is missing or makes no sense.
    """
    architecture = config.get("model_type")
    if architecture not in _DEFAULTS:
        raise Unsupported(f"architecture {architecture!r}")
    # A key that says null keeps its null: for a window, that means none.
    fields = Fields({**_DEFAULTS[architecture], **config}, name)
    _refuse_what_is_missing(fields, architecture)
    heads = fields.positive("num_attention_heads")
    kv_heads = fields.positive("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.wrong("num_key_value_heads")
    frequencies, amplitude = rope_of(fields, head_dim := _head_dim(fields, heads))
    return LlamaShape(
        architecture=architecture,
        layers=fields.positive("num_hidden_layers"),
        hidden_size=fields.positive("hidden_size"),
        intermediate_size=fields.positive("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary_size=fields.positive("vocab_size"),
        norm_epsilon=_epsilon(fields),
        context_length=fields.positive("max_position_embeddings"),
        inverse_frequencies=frequencies,
        rope_amplitude=amplitude,
        window=_window(fields, architecture),
        tied=fields.flag("tie_word_embeddings", False),
    )


def _refuse_what_is_missing(fields: Fields, architecture: str) -> None:
    """What the CPU engine lacks; keys that an architecture does not know are ignored there too."""
    if "quantization_config" in fields:
        raise Unsupported(f"weights quantised by {fields.table('quantization_config').get('quant_method')}")
    activation = fields.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise Unsupported(f"activation {activation!r}")
    if architecture == "llama" and fields.flag("mlp_bias", False):
        raise Unsupported("biases in its feed-forward layers")
    if architecture in ("llama", "qwen3") and fields.flag("attention_bias", False):
        raise Unsupported("a bias behind its attention")


def _head_dim(fields: Fields, heads: int) -> int:
    width = fields.positive("hidden_size")
    if "head_dim" not in fields and width % heads:
        raise fields.wrong("num_attention_heads")
    head_dim = fields.positive("head_dim", width // heads)
    if head_dim % 8:
        raise Unsupported(f"heads of {head_dim} values, no multiple of 8")
    return head_dim


def _epsilon(fields: Fields) -> float:
    epsilon = fields.number("rms_norm_eps", 1e-6)
    if epsilon < 0.0:
        raise fields.wrong("rms_norm_eps")
    return epsilon


def _window(fields: Fields, architecture: str) -> int | None:
    """How far a position sees: Mistral says it for all layers, Qwen may say it for some."""
    if architecture == "llama" or "sliding_window" not in fields:
        return None
    if architecture == "mistral":
        return fields.positive("sliding_window")
    kinds = _layer_kinds(fields)
    if kinds == {_WINDOWED}:
        return fields.positive("sliding_window")
    if _WINDOWED in kinds:
        raise Unsupported("attention windows on some of its layers")
    return None


def _layer_kinds(fields: Fields) -> set[str]:
    used = fields.flag("use_sliding_window", False)
    if "layer_types" in fields:
        types = fields.values["layer_types"]
        if not isinstance(types, list) or not all(isinstance(kind, str) for kind in types):
            raise fields.wrong("layer_types")
        kinds = set(types)
        if _WINDOWED in kinds and not used:
            raise fields.wrong("layer_types")
        return kinds
    layers, first = fields.positive("num_hidden_layers"), fields.number("max_window_layers", 28)
    return {_WINDOWED if used and layer >= first else "full_attention" for layer in range(layers)}
