"""What `--draft`, `--tree` and `--acceptance` name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

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

Draft = Literal["both", "heads", "lookup", "none"]

DEFAULT_ROWS = 16
LEAST_ALONE = 0.5
"""Path probability below which prompt lookup alone gets no row where nobody knows what rows cost."""


def check_draft(draft: str, heads: str | Path | None, planner: Planner | None) -> None:
    """See that `--draft` is known and leaves the heads and the tree their work; raises UserError if not."""
    if draft not in get_args(Draft):
        raise UserError(f"unknown draft '{draft}': choose both, heads, lookup or none")
    if draft in ("lookup", "none") and heads not in (None, "auto"):
        raise UserError(f"--draft {draft} does not use --heads {heads}: leave one of them out")
    if draft == "lookup" and isinstance(planner, StaticPlanner):
        raise UserError("a tree from a file has places for heads only: choose --tree auto or a number")


def planner_for(tree: str | int | Path) -> Planner | None:
    """The planner that `--tree` names: a number of rows, `medusa_choices` or a file of them; None: "auto"."""
    text = str(tree)
    if text == "auto":
        return None
    if text.lstrip("+-").isdigit():
        if int(text) < 1:
            raise UserError(f"a tree cannot have {text} rows: give 1 (no guesses) or more, 'auto' or a file")
        return BestFirstPlanner(int(text))
    if text.lstrip().startswith("["):
        return _static("--tree", text)
    path = Path(text)
    if not path.is_file():
        raise UserError(
            f"no tree '{text}': give 'auto', a number of rows, medusa_choices such as [[0],[1],[0,0]],"
            " or a JSON file of them"
        )
    return _static(str(path), path.read_text(encoding="utf-8"))


def unmeasured_planner(has_heads: bool) -> Planner:
    """What "auto" is on the torch engine, whose cost of a row changes with everything: a fixed number."""
    return BestFirstPlanner(DEFAULT_ROWS, 0.0 if has_heads else LEAST_ALONE)


def _static(source: str, text: str) -> StaticPlanner:
    """The planner of the `medusa_choices` in a text: themselves, or an object that holds them."""
    try:
        content = json.loads(text)
        choices = content.get("medusa_choices") if isinstance(content, dict) else content
        if not isinstance(choices, list) or not all(isinstance(one, list) for one in choices):
            raise ValueError("it should hold a list of paths such as [[0], [1], [0, 0]]")
        return StaticPlanner(parse_choices(choices))
    except ValueError as error:
        raise UserError(f"the tree in {source} cannot be used: {error}") from None


def acceptance_for(name: str) -> Acceptance:
    """The rule that `--acceptance` names."""
    if name == "exact":
        return ExactAcceptance()
    if name == "typical":
        return TypicalAcceptance()
    raise UserError(f"unknown acceptance '{name}': choose exact (lossless) or typical")
