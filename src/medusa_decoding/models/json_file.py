"""JSON files of a model, with errors that name the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medusa_decoding.errors import UserError


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of the model that the user called `name`.

    Raises:
        UserError: it is missing, or no such thing.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{name} has no {path.name}; give a whole model folder or Hub id") from error
    except (OSError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be loaded ({path.name}: {text}); download it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{name} cannot be loaded ({path.name} holds no object); download it again")
    return value
