"""Which architectures can verify trees, found out before the first token and not by a wrong text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medusa_decoding.engines.cache import Placement, SlotCache
from medusa_decoding.engines.masks import BatchShape, MaskStyle, build_masks, mask_style
from medusa_decoding.errors import UserError

# tests/engines compares every row of a tree with its path's plain forward for these.
TESTED = frozenset(
    ["gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3"]
)


@dataclass(frozen=True)
class Support:
    """What the engine must know of an architecture."""

    masks: MaskStyle


def inspect_model(model: Any) -> Support:
    """How `model` can be run with trees.

    Architectures that are not in the tests are tried: a small tree's rows must have the logits of their paths
    in plain forwards. Raises UserError where trees cannot work: recurrent layers, attention by place in the
    cache, failed trial.
    """
    kind = model.config.get_text_config().model_type
    style = mask_style(model)
    if style is None or getattr(model, "_is_stateful", False):
        raise UserError(
            _unsupported(kind, "its layers keep a state, or see by place, that a tree cannot share")
        )
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") == "dynamic":
        raise UserError(_unsupported(kind, "its rotary scaling changes with the length of the call"))
    support = Support(style)
    if kind not in TESTED and (reason := _trial(model, style)) is not None:
        raise UserError(_unsupported(kind, reason))
    return support


def _unsupported(kind: str, reason: str) -> str:
    return f"models of type '{kind}' cannot verify draft trees ({reason}); decode plainly with --no-heads"


@torch.inference_mode()
def _trial(model: Any, style: MaskStyle) -> str | None:
    """Compare a tree of four rows after a prompt of six with plain forwards of its two paths;

    None when they agree.
    """
    device = model.get_input_embeddings().weight.device
    dtype = model.get_input_embeddings().weight.dtype
    tokens = (np.arange(10) * 7 + 3) % int(model.config.get_text_config().vocab_size)
    parents = np.array([[-1, 0, 1, 2, 3, 4, 5, 6, 6, 7]])
    positions = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 7, 8]])
    shape = BatchShape(np.array([10]), np.array([0]), parents, positions)
    cache = SlotCache(int(model.config.get_text_config().num_hidden_layers))
    cache.place(Placement.of([0], [0], 10, device), 1)
    try:
        given = model(
            input_ids=torch.from_numpy(tokens[None]).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=build_masks(style, shape, dtype, device),
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
        for path in ([*range(8), 9], [*range(7), 8]):
            plain = model(input_ids=torch.from_numpy(tokens[path][None]).to(device), use_cache=False).logits[
                0, -1
            ]
            if not torch.allclose(
                given[path[-1]].float(), plain.float(), rtol=0.05, atol=0.02 * float(plain.abs().max())
            ):
                return "a trial tree gave other logits than plain decoding"
    except Exception as error:  # An unknown architecture may fail in any way; each means the same here.
        return f"a trial tree failed: {type(error).__name__}"
    return None
