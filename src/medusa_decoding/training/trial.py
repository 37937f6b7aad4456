"""A layer of a base model's size, trained for a moment: what this machine reaches in joint training.

Large products say little about it. Texts are short and differ in length, the layers' norms, rotations and
attention take their time beside the products, and so do LoRA's small matrices.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from medusa_decoding.models.quiet import quiet
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.shapes import ModelShape

# Two texts of an answer's usual length, one of them padded.
_TEXTS, _LENGTH = 2, 200
_REPEATS = 4


def joint_layer_flops(config: TrainingConfig, shape: ModelShape, dtype: Any) -> float:
    """Floating-point operations per second in the layers of `shape`: those of their products, which are what
    `estimate` counts, over the time of all. dtype: what products are computed in.
    """
    import torch

    layers, original = _layer(config, shape)
    tokens = torch.zeros((_TEXTS, _LENGTH), dtype=torch.long)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, _LENGTH // 2 :] = False

    def once() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            states = layers(tokens, attention_mask=mask).last_hidden_state
            if config.lm_loss == "kl":
                with torch.no_grad(), original():
                    layers(tokens, attention_mask=mask)
        states.float().sum().backward()

    work = 2 * shape.layer_parameters / shape.layers * tokens.numel() * passes(config)
    return work / _least(once)


def passes(config: TrainingConfig) -> int:
    """Over the layers, for each token: the original and the model forward, the model backward to its inputs
    and, with `full`, to its weights.
    """
    return (3 if config.adapter == "lora" else 4) - (1 if config.lm_loss == "ce" else 0)


def _layer(config: TrainingConfig, shape: ModelShape) -> tuple[Any, Callable[[], Any]]:
    """The layer, and the context in which it is the original's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=1,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
        )
    )
    if config.adapter == "full":
        return model.model, nullcontext
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=config.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, adapter)
    return adapted.get_base_model().model, adapted.disable_adapter


def _least(work: Callable[[], object]) -> float:
    """The least time of several runs, in seconds."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[1:])
