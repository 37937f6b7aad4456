"""The one set of tensor names that all formats translate to and from.

`{h}.{l}.linear.weight`, `{h}.{l}.linear.bias` for block l of head h (both from 0), `{h}.0.root.weight` for
heads that see the root, `{h}.{L}.weight` for own projections, `token_map` for a draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.module import MedusaHeads, ResidualBlocks

StateDict = dict[str, Tensor]


def check_state(config: HeadsConfig, state: StateDict, source: object) -> None:
    """Raise UserError naming the first tensor of `source` that is missing, too much, or of another shape."""
    known = set()
    for name, shape in config.expected_shapes():
        known.add(name)
        if name not in state:
            raise UserError(f"{source}: the tensor '{name}' is missing; fetch or save the heads again.")
        if tuple(state[name].shape) != shape:
            raise UserError(
                f"{source}: the tensor '{name}' has shape {tuple(state[name].shape)} where {shape}"
                " is expected; fetch or save the heads again."
            )
        # A cast would hide both faults: a float map loses ids, and integers are no weights.
        if state[name].is_floating_point() == (name == "token_map"):
            raise UserError(
                f"{source}: the tensor '{name}' is of type {state[name].dtype};"
                " fetch or save the heads again."
            )
    unexpected = sorted(set(state) - known)
    if unexpected:
        raise UserError(
            f"{source}: the tensor '{unexpected[0]}' does not belong to heads of this configuration;"
            " fetch or save the heads again."
        )


def build_heads(config: HeadsConfig, state: StateDict, source: object = "The heads") -> MedusaHeads:
    """Make float32 CPU heads with copies of the tensors of `state`; raises UserError if one does not fit."""
    check_state(config, state, source)
    heads = MedusaHeads(config, state.get("token_map"))
    with torch.no_grad():
        for name, parameter in _parameters_by_name(heads):
            parameter.copy_(state[name])
    return heads


def state_of(heads: MedusaHeads, dtype: torch.dtype | None = None) -> StateDict:
    """Return CPU copies of the heads' tensors as `dtype` (None: as they are); the token map stays int64."""
    state = {name: cpu_copy(name, parameter, dtype) for name, parameter in _parameters_by_name(heads)}
    if heads.token_map is not None:
        state["token_map"] = heads.token_map.detach().cpu().clone()
    return state


def _parameters_by_name(heads: MedusaHeads) -> Iterator[tuple[str, Tensor]]:
    """Yield views of the stacked parameters under their names."""
    for layer, blocks in enumerate(heads.blocks):
        assert isinstance(blocks, ResidualBlocks)
        for head in range(heads.config.num_heads):
            yield f"{head}.{layer}.linear.weight", blocks.weight[head]
            yield f"{head}.{layer}.linear.bias", blocks.bias[head]
            if blocks.root_weight is not None:
                yield f"{head}.{layer}.root.weight", blocks.root_weight[head]
    if heads.projection is not None:
        for head in range(heads.config.num_heads):
            yield f"{head}.{heads.config.num_layers}.weight", heads.projection[head]


def cpu_copy(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a copy on its own memory, as `dtype` (None: as it is); raises UserError if that overflows."""
    # A clone of its own: safetensors refuses tensors that share memory, and the heads are slices of one.
    copy = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    if not bool(copy.isfinite().all()):
        raise UserError(
            f"The tensor '{name}' of the heads has values that are not finite as {copy.dtype}:"
            " save them as float32, or train them again with a lower learning rate."
        )
    return copy
