"""Which heads are meant, where they are, and what goes along with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from medusa_decoding.decoding import StaticPlanner
from medusa_decoding.decoding.tree import Choices
from medusa_decoding.errors import UserError
from medusa_decoding.generation.packaged import packaged_heads
from medusa_decoding.generation.rules import planner_for
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.location import folder_of
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.pretrained import read_checkpoint
from medusa_decoding.heads.state import build_heads
from medusa_decoding.models import ALIASES
from medusa_decoding.training.tune_report import TUNING_FILE


@dataclass(frozen=True)
class Given:
    """Heads to be converted.

    heads: not bound to a base model. name: what they are called. dtype: the type their tensors are stored in.
    choices: their static tree; None where nobody looked for one. instead_of: the heads that were asked for,
    where these stand in for them.
    """

    heads: MedusaHeads
    name: str
    dtype: torch.dtype
    choices: Choices | None
    instead_of: str | None = None

    @property
    def config(self) -> HeadsConfig:
        """What the heads are."""
        return self.heads.config


def given_heads(name: str, tree: str | None) -> Given:
    """The heads that `name` means: an alias, packaged heads, a folder or a Hub id.

    An alias with heads that see the root gives its plain ones. tree: as in `ConvertConfig`. Raises UserError
    where there are no heads, or none that another engine could run.
    """
    found, instead_of = _exportable(name.removeprefix("packaged:"))
    location = packaged_heads().get(found) or Path(found)
    folder = folder_of(location if location.is_dir() else found)
    config, state = read_checkpoint(folder)
    if config.condition == "root":
        raise UserError(_no_other_engine(config, found))
    dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)
    return Given(build_heads(config, state, folder), found, dtype, _choices(tree, folder, config), instead_of)


def _exportable(name: str) -> tuple[str, str | None]:
    """The packaged heads that can be exported, and those asked for; any other name as it is."""
    plain = [alias.plain_heads for alias in ALIASES.values() if name in (alias.name, alias.default_heads)]
    return (plain[0], name) if plain and plain[0] is not None else (name, None)


def _no_other_engine(config: HeadsConfig, name: str) -> str:
    alias = ALIASES.get(config.base_model or "")
    packaged = f", or convert the packaged {alias.plain_heads}" if alias and alias.plain_heads else ""
    return (
        f"the heads {name} see the root token's embedding, which no other engine gives them:"
        f" train plain ones with 'medusa train --condition none' and convert those{packaged}"
    )


def _choices(tree: str | None, folder: Path, config: HeadsConfig) -> Choices | None:
    """The static tree that is asked for, or the one that `tune` found for these heads."""
    if tree is None and not (folder / TUNING_FILE).is_file():
        return None
    planner = planner_for(tree or folder / TUNING_FILE)
    if not isinstance(planner, StaticPlanner):
        raise UserError(f"--tree {tree} is no static tree: give medusa_choices such as [[0],[1],[0,0]]")
    deepest = max(map(len, planner.choices), default=0)
    if deepest > config.num_heads:
        raise UserError(
            f"the tree is {deepest} tokens deep, and there are {config.num_heads} heads:"
            " give one that 'medusa tune' found for these heads"
        )
    return planner.choices
