"""GGUF files of tiny random models, written as the usual converter writes them.

Names come from the table of the `gguf` package; what the converter does to values (the order of query and
key rows, norms of Gemma) is written down here a second time, so that a mistake in the reader is not
repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from medusa_decoding.models.gguf_reader import GgufFile

DATA = Path(__file__).parent / "data"
ARCHITECTURES = {
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}


def random_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model whose every weight is random, norms and biases too."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            middle = 0.0 if "gemma" in config.model_type or "norm" not in name else 1.0
            parameter.copy_(middle + 0.2 * noise if "norm" in name or "bias" in name else 0.1 * noise)
    return model


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    *,
    vocabulary: str = "byte_level.gguf",
    extra: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray[Any, Any]] | None = None,
) -> Path:
    """Write `model` with a vocabulary from the data folder; `extra` holds further keys, `tensors` further
    tensors.
    """
    architecture = ARCHITECTURES[model.config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    _write_config(writer, model.config)
    _write_vocabulary(writer, GgufFile(DATA / vocabulary).metadata)
    for key, value in (extra or {}).items():
        _write_key(writer, key, value)
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        writer.add_tensor(target, _as_gguf(name, weight.numpy(), model.config))
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_config(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    if config.model_type != "phi3":
        writer.add_key_length(width)
        writer.add_value_length(width)
    if config.model_type in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _write_vocabulary(writer: gguf.GGUFWriter, metadata: dict[str, Any]) -> None:
    for key, value in metadata.items():
        if key.startswith("tokenizer."):
            _write_key(writer, key, value)


def _write_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _as_gguf(name: str, values: np.ndarray[Any, Any], config: PreTrainedConfig) -> np.ndarray[Any, Any]:
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        return values + np.float32(1.0)
    if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        width = len(values) // heads
        order = [
            h * width + i + half * width // 2
            for h in range(heads)
            for i in range(width // 2)
            for half in (0, 1)
        ]
        return np.ascontiguousarray(values[order])
    return values
