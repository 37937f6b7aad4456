"""Which architectures can verify trees, found out before the first token and not by a wrong text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medusa_decoding.decoding.protocols import Verified, as_rows, concatenate
from medusa_decoding.decoding.tree import Tree
from medusa_decoding.engines.masks import MaskStyle, mask_style
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.engines.torch_engine import TorchEngine

# tests/engines compares every row of a tree with its path's plain forward for these.
TESTED = frozenset(
    ["gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3"]
)

TRIAL_WINDOW = 4
# The trial's steps: parents of each sequence's rows, and those that are committed. The first sequence grows
# beyond the window, the second stays shorter and is padded beside it.
TRIAL = (
    (([-1, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]), ([-1], [0])),
    (([-1, 0, 0, 2, 1], [0, 2, 3]), ([-1, 0, 0], [0, 2])),
    (([-1, 0, 0], [0]), ([-1, 0], [0])),
)


@dataclass(frozen=True)
class Support:
    """What the engine must know of an architecture.

    positions: how many positions the rotary scaling serves without a change, None for all.
    """

    masks: MaskStyle
    positions: int | None = None


class NoTrees(UserError):
    """A model cannot verify trees. fault: why, without the command line's way out."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}; decode plainly with --no-heads")
        self.fault = fault


def inspect_model(model: Any) -> Support:
    """How `model` can be run with trees.

    Architectures that are not in the tests are tried: the rows of small trees must have the logits of their
    paths in plain forwards. Raises NoTrees where trees cannot work: recurrent layers, attention by place in
    the cache, failed trial.
    """
    config = model.config.get_text_config()
    style = mask_style(model)
    if style is None or getattr(model, "_is_stateful", False):
        raise _unsupported(config, "its layers keep a state, or see by place, that a tree cannot share")
    attention = getattr(config, "_attn_implementation", None)
    if attention not in (None, "eager", "sdpa"):
        raise _unsupported(config, f"its attention '{attention}' takes no tree masks, 'sdpa' would")
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise _unsupported(config, "its adapter is a learned prompt")
    support = Support(style, _unchanged_positions(config))
    if not _is_tested(model) and (reason := _trial(model, style)) is not None:
        raise _unsupported(config, reason)
    return support


def logit_tolerance(dtype: torch.dtype) -> float:
    """How far two computations of a logit may lie apart by rounding, as a part of the row's spread.

    Many models compute some of their layers in float32 whatever their weights are.
    """
    return 4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) ** 0.5


def _unsupported(config: Any, reason: str) -> NoTrees:
    return NoTrees(f"models of type '{config.model_type}' cannot verify draft trees ({reason})")


def _is_tested(model: Any) -> bool:
    """Whether the model is what the tests know: the type alone may also name a part of something larger, or
    code from elsewhere.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(inner).__module__.startswith("transformers.models.") and inner.config.model_type in TESTED


def _unchanged_positions(config: Any) -> int | None:
    """Rotary scalings of these two types take other factors for all rows of a call that goes beyond a length,
    also for those whose keys are already kept.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    limits = []
    # One set of parameters, or one per kind of layer.
    for scaling in [parameters] if "rope_type" in parameters else parameters.values():
        kind = scaling.get("rope_type") if isinstance(scaling, dict) else None
        if kind == "longrope":
            limits.append(int(scaling["original_max_position_embeddings"]))
        elif kind == "dynamic":
            limits.append(int(config.max_position_embeddings))
    return min(limits, default=None)


def _trial(model: Any, style: MaskStyle) -> str | None:
    """What goes wrong when small trees are verified; None when nothing does."""
    from medusa_decoding.engines.torch_engine import TorchEngine

    try:
        with _narrow_windows(model.config.get_text_config(), style) as narrow:
            engine = TorchEngine(model, context_length=64, support=Support(narrow))
            error = _largest_error(model, engine)
    except Exception as failure:  # An unknown architecture may fail in any way; each means the same here.
        return f"a trial tree failed: {type(failure).__name__}"
    if error <= logit_tolerance(engine.dtype):
        return None
    return "a trial tree gave other logits than plain decoding"


@contextmanager
def _narrow_windows(config: Any, style: MaskStyle) -> Iterator[MaskStyle]:
    """While open, the config's sliding window is so narrow that a short trial goes beyond it.

    The mask is then right only if the window is what the model itself goes by.
    """
    window = getattr(config, "sliding_window", None)
    if not window:
        yield style
        return
    config.sliding_window = TRIAL_WINDOW
    try:
        narrow = {kind: TRIAL_WINDOW if width else None for kind, width in style.windows.items()}
        yield MaskStyle(narrow, style.by_layer_type)
    finally:
        config.sliding_window = window


@torch.inference_mode()
def _largest_error(model: Any, engine: TorchEngine) -> float:
    """The largest difference of a tree's row to the plain forward of its path, as a part of the logits'
    spread.
    """
    texts: dict[int, list[int]] = {engine.open(): [], engine.open(): []}
    errors = []
    for number, step in enumerate(TRIAL):
        trees = [_tree(parents, engine.vocabulary_size, number) for parents, _ in step]
        rows = concatenate(
            [
                as_rows(handle, tree.tokens, len(text), tree.parents, tree.depths, tree.parents < len(tree))
                for (handle, text), tree in zip(texts.items(), trees, strict=True)
            ]
        )
        verified, offset, kept = engine.forward(rows), 0, list[int]()
        for text, tree, (_, accepted) in zip(texts.values(), trees, step, strict=True):
            errors += [
                _error(
                    model,
                    engine,
                    text + tree.tokens[path].tolist(),
                    verified,
                    [offset + node for node in path],
                )
                for path in map(tree.path, set(range(len(tree))) - set(tree.parents.tolist()))
            ]
            kept += [offset + node for node in accepted]
            text += tree.tokens[accepted].tolist()
            offset += len(tree)
        engine.commit(np.array(kept))
    return float(np.max(errors))


def _tree(parents: list[int], vocabulary: int, number: int) -> Tree:
    tokens = (np.arange(len(parents)) * 7 + 11 * number + 3) % vocabulary
    return Tree(tokens, np.array(parents), np.ones(len(parents)))


def _error(model: Any, engine: TorchEngine, tokens: list[int], verified: Verified, rows: list[int]) -> float:
    """The error of the rows that are the last ones of `tokens`."""
    ids = torch.tensor([tokens], device=engine.device)
    plain = model(input_ids=ids, use_cache=False).logits[0, -len(rows) :].double().cpu().numpy()
    given = np.stack([verified.logits(row) for row in rows])
    return float(np.max(np.abs(given - plain).max(-1) / np.ptp(plain, -1)))
