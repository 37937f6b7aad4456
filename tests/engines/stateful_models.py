"""Tiny random models that cannot verify trees: recurrent layers, ALiBi, attention by place in the cache."""

from __future__ import annotations

from typing import Any

from tests.engines.tiny_models import build

STATE = {"state_size": 8, "expand": 2, "conv_kernel": 4}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
MAMBA_LAYERS = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 4}

STATEFUL: dict[str, dict[str, Any]] = {
    "Mamba": {**STATE, "time_step_rank": 4},
    "Mamba2": {**STATE, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    "Rwkv": {"attention_hidden_size": 16, "context_length": 64},
    "RecurrentGemma": {
        "lru_width": 16,
        "attention_window_size": 6,
        "head_dim": 4,
        "block_types": ["recurrent", "attention"],
    },
    "Jamba": {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "Bamba": {**MAMBA_LAYERS, "attn_layer_indices": [1]},
    "Lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8},
    "OlmoHybrid": LINEAR,
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Mpt": {"d_model": 16, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "Falcon": {
        "alibi": True,
        "new_decoder_architecture": False,
        "multi_query": False,
        "num_kv_heads": 4,
    },
    "Llama4Text": {
        "attention_chunk_size": 5,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 16,
        "head_dim": 4,
    },
    "GPTNeo": {
        "attention_types": [[["global", "local"], 1]],
        "num_layers": 2,
        "num_hidden_layers": 2,
        "num_heads": 4,
        "window_size": 5,
        "intermediate_size": 24,
    },
}


def stateful(kind: str) -> Any:
    """The model of one of STATEFUL."""
    return build(kind, **STATEFUL[kind])
