"""The torch state dict of a GGUF file: names, order of rows and values as transformers has them."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from medusa_decoding.models.gguf_names import checked_names, halves
from medusa_decoding.models.gguf_reader import GgufFile


def state_dict_of(file: GgufFile, config: PreTrainedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every weight of `file` under its transformers name, dequantised to `dtype`.

    One tensor at a time passes through float32, so the peak is the model in `dtype` and one float32 tensor.

    Raises:
        UserError: a tensor is unknown, missing, of the wrong shape or of an unknown quantisation.
    """
    names = checked_names(file, config.model_type, _shapes(config))
    return {target: _weight(file, name, config).to(dtype) for name, target in names.items()}


def _shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a model of `config` has, without making one."""
    with torch.device("meta"):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def _weight(file: GgufFile, name: str, config: PreTrainedConfig) -> torch.Tensor:
    values = file.tensor(name)
    if config.model_type == "llama" and ".attn_q." in name:
        values = halves(values, config.num_attention_heads)
    elif config.model_type == "llama" and ".attn_k." in name:
        values = halves(values, config.num_key_value_heads)
    elif config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        # transformers multiplies by 1 + w, GGUF holds that sum.
        values = values - 1.0
    # A tensor that was not quantised is still the file's own memory, which is read-only.
    return torch.from_numpy(values if values.flags.writeable else values.copy())
