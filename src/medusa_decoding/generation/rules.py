"""What `--tree` and `--acceptance` name."""

from __future__ import annotations

import json
from pathlib import Path

from medusa_decoding.decoding import (
    BestFirstPlanner,
    ExactAcceptance,
    Planner,
    StaticPlanner,
    TypicalAcceptance,
)
from medusa_decoding.decoding.acceptance import Acceptance
from medusa_decoding.decoding.tree import parse_choices
from medusa_decoding.errors import UserError

DEFAULT_ROWS = 16


def planner_for(tree: str | int | Path) -> Planner | None:
    """The planner that `--tree` names: a number of rows, or a file of `medusa_choices`; None for "auto"."""
    text = str(tree)
    if text == "auto":
        return None
    if text.lstrip("+-").isdigit():
        if int(text) < 1:
            raise UserError(f"a tree cannot have {text} rows: give 1 (no guesses) or more, 'auto' or a file")
        return BestFirstPlanner(int(text))
    path = Path(text)
    if not path.is_file():
        raise UserError(f"no tree '{text}': give 'auto', a number of rows, or a JSON file of medusa_choices")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        choices = content.get("medusa_choices") if isinstance(content, dict) else content
        if not isinstance(choices, list) or not all(isinstance(one, list) for one in choices):
            raise ValueError("it should hold a list of paths such as [[0], [1], [0, 0]]")
        return StaticPlanner(parse_choices(choices))
    except ValueError as error:
        raise UserError(f"the tree in {path} cannot be used: {error}") from None


def acceptance_for(name: str) -> Acceptance:
    """The rule that `--acceptance` names."""
    if name == "exact":
        return ExactAcceptance()
    if name == "typical":
        return TypicalAcceptance()
    raise UserError(f"unknown acceptance '{name}': choose exact (lossless) or typical")
