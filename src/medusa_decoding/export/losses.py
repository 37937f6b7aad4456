"""What a layout has no place for, said precisely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from medusa_decoding.export.config import Target
from medusa_decoding.export.written import CHAINS
from medusa_decoding.heads.config import HeadsConfig


def losses_of(given: HeadsConfig, to: Target, layout: str, *, has_tree: bool) -> Iterator[str]:
    """One phrase for each part of the heads that another engine will not have. has_tree: `tune` found one."""
    if given.draft_vocabulary_size is not None:
        yield _draft_vocabulary(given, layout)
    if has_tree and to in CHAINS:
        yield "the static tree: the engine drafts a chain, each head's likeliest token"
    if given.calibration is not None or given.path_calibration is not None:
        yield "the calibration of the guesses' probabilities, which only the planner of this project uses"
    if given.base_fingerprint is not None:
        yield "the base model's fingerprint: nobody will notice when the heads run on other weights"


def _draft_vocabulary(given: HeadsConfig, layout: str) -> str:
    size, whole = given.draft_vocabulary_size, given.vocabulary_size
    if layout == "v2":
        return (
            f"the draft vocabulary of {size:,} tokens: the engine takes the likeliest of all {whole:,}, by"
            " the base model's own projection, so a head may guess a token that it was not trained to guess"
            " (version 1 keeps the guesses)"
        )
    if layout == "vllm":
        return (
            f"the draft vocabulary of {size:,} tokens is written out as all {whole:,}, since vLLM cannot load"
            " its map: a token outside it has the mean of the draft vocabulary's rows, so it is never a"
            " head's likeliest; the engine multiplies all rows"
        )
    return (
        f"the draft vocabulary of {size:,} tokens is written out as all {whole:,}: a token outside it has the"
        " mean of the draft vocabulary's rows, so it is never a head's likeliest and is among its k likeliest"
        " only where fewer than k logits lie above their mean; the engine multiplies all rows"
    )


def rounding(tensors: Iterable[Tensor], dtype: torch.dtype, what: str) -> str | None:
    """A phrase where values of one of the tensors change as `dtype`; integers stay what they are."""
    weights = (tensor for tensor in tensors if tensor.is_floating_point())
    if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in weights):
        return None
    return f"{what} rounded to {str(dtype).removeprefix('torch.')}"
