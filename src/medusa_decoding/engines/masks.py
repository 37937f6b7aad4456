"""Tree masks: which keys each row of a pass may see, per kind of attention layer."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medusa_decoding.decoding.tree import BoolArray, IntArray, ancestor_mask


@dataclass(frozen=True)
class MaskStyle:
    """How a model takes masks.

    windows: window of each kind of attention layer, None where it sees everything.
    by_layer_type: the model takes a dictionary with a mask per kind; else one mask serves all layers.
    """

    windows: dict[str, int | None]
    by_layer_type: bool


# Fields of a config that tell of windows, chunks or selections which a model applies by itself, by place in
# the cache and not by position.
FOREIGN = re.compile(r"window|attention_chunk|attention_types|local_att|block_size|index_topk|lsh_att")
UNDERSTOOD = frozenset(
    ["sliding_window", "use_sliding_window", "max_window_layers", "sliding_window_pattern"]
)


def mask_style(model: Any) -> MaskStyle | None:
    """How `model` takes masks, or None where its attention is of a kind that no mask given from outside can
    express.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    source = _decoder_source(model)
    if source is None or kinds - {"full_attention", "sliding_attention"} or _foreign_attention(config):
        return None
    # Some configs carry a window that their model never looks at.
    window = getattr(config, "sliding_window", None) if "sliding" in source else None
    # Models with several kinds of layers look for a dictionary of masks in their decoder's forward.
    if "attention_mask, dict)" in source:
        return MaskStyle(
            {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}, True
        )
    if len(kinds) > 1:
        return None
    return MaskStyle({"all": None if kinds == {"full_attention"} else window}, False)


def _decoder_source(model: Any) -> str | None:
    """The source text of the decoder's forward, None where it cannot be had."""
    try:
        decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        return inspect.getsource(type(decoder).forward)
    except (AttributeError, OSError, TypeError):
        return None


def _foreign_attention(config: Any) -> bool:
    return any(
        FOREIGN.search(name) is not None and name.lstrip("_") not in UNDERSTOOD and bool(value)
        for name, value in vars(config).items()
    )


@dataclass(frozen=True)
class BatchShape:
    """One model call: sequences side by side, their rows padded to the same number.

    counts, bases: (sequences,) rows and committed tokens of each. parents, positions: (sequences, rows),
    parents counted within the sequence, -1 also for padding.
    """

    counts: IntArray
    bases: IntArray
    parents: IntArray
    positions: IntArray

    def visible(self) -> BoolArray:
        """(sequences, rows, keys): committed tokens, ancestors and the row itself.

        A padding row sees itself only.
        """
        batch, rows = self.parents.shape
        mask = np.zeros((batch, rows, int(self.bases.max()) + rows), np.bool_)
        for index, (count, base) in enumerate(zip(self.counts.tolist(), self.bases.tolist(), strict=True)):
            mask[index, :count, :base] = True
            mask[index, :, base : base + rows] = ancestor_mask(self.parents[index])
        return mask

    def key_positions(self) -> IntArray:
        """(sequences, keys) position of each key; meaningful where the key is visible."""
        batch, rows = self.parents.shape
        places = np.tile(np.arange(int(self.bases.max()) + rows), (batch, 1))
        for index, base in enumerate(self.bases.tolist()):
            places[index, base : base + rows] = self.positions[index]
        return places


def build_masks(style: MaskStyle, shape: BatchShape, dtype: torch.dtype, device: torch.device) -> Any:
    """The mask, or dictionary of masks, to hand to the model:

    (sequences, 1, rows, keys), 0 or the lowest number.
    """
    visible = shape.visible()
    masks: dict[int | None, torch.Tensor] = {}
    for window in set(style.windows.values()):
        seen = visible
        if window is not None:
            seen = visible & (shape.key_positions()[:, None, :] > shape.positions[:, :, None] - window)
        hidden = torch.from_numpy(~seen).to(device)[:, None]
        masks[window] = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(
            hidden, torch.finfo(dtype).min
        )
    if style.by_layer_type:
        return {kind: masks[window] for kind, window in style.windows.items()}
    return masks[style.windows["all"]]
