"""Which heads and which tree: SGLang has no flags for them, so they stand in the environment."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.decoding.tree import parse_choices

HEADS, TREE = "MEDUSA_HEADS", "MEDUSA_TREE"

Choices = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Settings:
    """heads: a folder or Hub id. choices: the static tree's `medusa_choices`, without the root."""

    heads: str
    choices: Choices

    @classmethod
    def of_environment(cls) -> Settings:
        """Raises ValueError naming the variable that is missing or wrong."""
        heads, tree = os.environ.get(HEADS), os.environ.get(TREE)
        if not heads or not tree:
            raise ValueError(
                f"set {HEADS} to the heads and {TREE} to their tree: medusa_choices such as [[0],[1],[0,0]],"
                " or a file of them ('medusa tune' writes tuning.json)"
            )
        text = tree if tree.lstrip().startswith("[") else Path(tree).read_text(encoding="utf-8")
        content = json.loads(text)
        choices = content.get("medusa_choices") if isinstance(content, dict) else content
        return cls(heads, parse_choices(choices))
