"""Keys and values kept as fp16: rounded to the nearest on all instruction sets, in half the memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from .random_models import ISAS, Texts, alone, chain, random_model, random_tokens, shape_of

MODEL = random_model(shape_of(layers=1, head_dim=64), kv_cache="fp16")
TEXT = random_tokens(np.random.default_rng(0), 150)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1e-9, 1e-7, 1e-5, 1.0, 3e4, 1e6])
def test_values_of_all_sizes_are_rounded_alike(size: float, isa: str) -> None:
    """Down to those between the smallest numbers of fp16, and up to those beyond its largest."""
    tensors, name = dict(MODEL.tensors), "model.layers.0.self_attn.v_proj.weight"
    tensors[name] = (size * tensors[name]).astype(np.float32)
    model = replace(MODEL, tensors=tensors)
    assert alone(model.engine("fp32", isa=isa), TEXT) == alone(model.engine("fp32", isa="portable"), TEXT)
    texts = Texts(model.engine("fp32", isa=isa))
    assert np.isfinite(texts.engine.forward(texts.rows({texts.open(): chain(TEXT)})).logits(149)).all()


def test_they_are_what_numpy_makes_of_them() -> None:
    """One layer and one token, so that the attention's output is the value itself, rounded."""
    size = MODEL.shape.hidden_size
    tensors = dict(MODEL.tensors)
    prefix = "model.layers.0"
    tensors[f"{prefix}.mlp.down_proj.weight"] = np.zeros_like(tensors[f"{prefix}.mlp.down_proj.weight"])
    hidden = {}
    for kind in ("fp32", "fp16"):
        model = replace(MODEL, tensors=tensors, kv_cache=kind)
        texts = Texts(model.engine("fp32", isa="portable"))
        verified = texts.engine.forward(texts.rows({texts.open(): chain([7])}))
        hidden[kind] = verified.hidden(0)
    embedded = tensors["model.embed_tokens.weight"][7].astype(np.float64)
    normed = embedded / np.sqrt((embedded**2).mean() + MODEL.shape.norm_epsilon)
    normed *= tensors[f"{prefix}.input_layernorm.weight"]
    values = tensors[f"{prefix}.self_attn.v_proj.weight"] @ normed.astype(np.float32)
    group = MODEL.shape.heads // MODEL.shape.kv_heads
    for kind in ("fp32", "fp16"):
        kept = values.astype(np.float16).astype(np.float32) if kind == "fp16" else values
        attended = np.repeat(kept.reshape(MODEL.shape.kv_heads, -1), group, axis=0).ravel()
        state = embedded + tensors[f"{prefix}.self_attn.o_proj.weight"] @ attended
        state = state / np.sqrt((state**2).mean() + MODEL.shape.norm_epsilon) * tensors["model.norm.weight"]
        other = hidden["fp32" if kind == "fp16" else "fp16"]
        assert np.abs(hidden[kind] - state).max() < 2e-6 * size**0.5 < np.abs(other - state).max()


def test_half_the_memory() -> None:
    held = {}
    for kind in ("fp32", "fp16"):
        texts = Texts(replace(MODEL, kv_cache=kind).engine("int8"))
        texts.feed(texts.open(), TEXT)
        held[kind] = texts.engine.model.cache_bytes()
    assert held["fp32"] == 2 * held["fp16"] > 0


def test_the_description_tells() -> None:
    """So that a machine's profile is kept for each."""
    descriptions = {replace(MODEL, kv_cache=kind).engine("int8").description for kind in ("fp32", "fp16")}
    assert len(descriptions) == 2
