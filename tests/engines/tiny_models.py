"""Tiny random models of many architectures, in float64, and what a plain forward of them says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import transformers

VOCABULARY = 37
WINDOW = 5
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
HYBRID = ["sliding_attention", "full_attention", "sliding_attention"]

# Name of the transformers config class without "Config", and what differs from SIZES.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "llama3-rope": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mistral-full": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-sliding": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 6}),
    "qwen3-sliding": (
        "Qwen3",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "phi3": ("Phi3", {"sliding_window": None}),
    "phi3-sliding": ("Phi3", {"sliding_window": WINDOW}),
    "gemma": ("Gemma", {"head_dim": 6}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 6,
            "sliding_window": WINDOW,
            "layer_types": HYBRID,
            "final_logit_softcapping": 3.0,
            "attn_logit_softcapping": 2.0,
            "attn_implementation": "eager",
        },
    ),
    "gemma3": ("Gemma3Text", {"head_dim": 6, "sliding_window": WINDOW, "layer_types": HYBRID}),
    "gpt2": ("GPT2", {"n_inner": 24}),
    "gpt_neox": ("GPTNeoX", {"rotary_pct": 0.5}),
    # Not among those that are known: each of these goes through the trial.
    "mixtral": ("Mixtral", {"sliding_window": WINDOW, "num_local_experts": 4}),
    "starcoder2": ("Starcoder2", {"sliding_window": WINDOW}),
    "granite": ("Granite", {"logits_scaling": 2.0, "embedding_multiplier": 3.0}),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", {"sliding_window": WINDOW, "layer_types": HYBRID}),
    "phi": ("Phi", {}),
    "cohere2": ("Cohere2", {"sliding_window": WINDOW, "layer_types": HYBRID}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0, 1]}),
    "gpt_oss": (
        "GptOss",
        {
            "sliding_window": WINDOW,
            "layer_types": HYBRID,
            "num_local_experts": 4,
            "head_dim": 6,
            "attn_implementation": "eager",
        },
    ),
    "deepseek_v3": (
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 6,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 8,
        },
    ),
}


def build(kind: str, **fields: Any) -> Any:
    """A random model of `kind`, "Llama" say, its weights large enough for attention to matter."""
    options = SIZES | fields
    attention = options.pop("attn_implementation", None)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    # The grouped matrix product that experts use by default knows no float64.
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, experts_implementation="eager"
    )
    model.double().eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        spread = weight.shape[-1] ** -0.5 * (1.0 if "embed" in name else 1.5) if weight.dim() > 1 else 0.1
        weight += torch.randn_like(weight) * spread
    return model


@cache
def model_of(name: str) -> Any:
    """The model of one of ARCHITECTURES, built once."""
    kind, fields = ARCHITECTURES[name]
    return build(kind, **fields)


@torch.no_grad()
def plain(model: Any, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, vocabulary) logits and (tokens, hidden size) inputs of the lm_head, without cache."""
    seen: list[torch.Tensor] = []
    hook: Callable[..., None] = lambda _, arguments: seen.append(arguments[0][0])  # noqa: E731
    handle = model.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        logits = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
    finally:
        handle.remove()
    return logits, seen[0]
