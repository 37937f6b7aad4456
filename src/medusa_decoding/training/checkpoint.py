"""What a run needs to go on after a kill, in one file that is either whole or absent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass
class Checkpoint:
    """The state after `step` optimiser steps.

    The order of the positions is a function of seed and epoch, and nothing else is random, so step, heads and
    optimiser are all that a continued run needs to repeat the uninterrupted one exactly.
    losses: of each step. history: the evaluation after each epoch. seconds: spent on training, over all runs.
    best: the heads of the epoch with the least held-out loss, where they may be wanted at the end.
    """

    step: int
    heads: dict[str, Tensor]
    optimiser: dict[str, Any]
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, Tensor] | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint."""
    content = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    with atomic_write(folder / CHECKPOINT_FILE) as temporary:
        torch.save(content, temporary)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint, None if there is none; raises UserError if it is damaged."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        # torch raises half a dozen types here, by kind of damage and by version.
        raise UserError(f"{path} is damaged; delete it to begin this training anew") from error
