"""Names and shapes of the weights of a Llama-like model."""

from __future__ import annotations

from medusa_decoding.engines.cpu.shape import LlamaShape

Shapes = dict[str, tuple[int, ...]]

EMBEDDING = "model.embed_tokens.weight"
PROJECTION = "lm_head.weight"


def expected_weights(shape: LlamaShape, *, biased: bool) -> Shapes:
    """Name and shape (outputs first) of every weight; `biased` says whether query, key and value have
    biases.
    """
    table = (shape.vocabulary_size, shape.hidden_size)
    found: Shapes = {EMBEDDING: table, "model.norm.weight": (shape.hidden_size,)}
    if not shape.tied:
        found[PROJECTION] = table
    layer = _layer(shape, biased)
    for index in range(shape.layers):
        found.update({f"model.layers.{index}.{name}": size for name, size in layer.items()})
    return found


def _layer(shape: LlamaShape, biased: bool) -> Shapes:
    hidden, inner, head = shape.hidden_size, shape.intermediate_size, shape.head_dim
    widths = {"q": shape.heads * head, "k": shape.kv_heads * head, "v": shape.kv_heads * head}
    found: Shapes = {f"self_attn.{part}_proj.weight": (width, hidden) for part, width in widths.items()}
    if biased:
        found.update({f"self_attn.{part}_proj.bias": (width,) for part, width in widths.items()})
    if shape.architecture == "qwen3":
        found.update({f"self_attn.{part}_norm.weight": (head,) for part in ("q", "k")})
    return found | {
        "self_attn.o_proj.weight": (hidden, widths["q"]),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
