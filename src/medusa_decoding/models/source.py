"""What a user means by a model's name: an alias, a GGUF file, a folder or a Hub id."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medusa_decoding.errors import UserError
from medusa_decoding.models.aliases import ALIASES, Alias

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FORMS = "a .gguf file, a folder with config.json or a Hub id (owner/name)"


@dataclass(frozen=True)
class Source:
    """Where a base model comes from.

    Attributes:
        kind: what it is.
        name: what the user wrote.
        path: the GGUF file or the folder; None for a Hub id.
        hub_id: the Hub id; None for anything local.
        alias: the alias behind the name, if it was one.
    """

    kind: Literal["gguf", "folder", "hub"]
    name: str
    path: Path | None = None
    hub_id: str | None = None
    alias: Alias | None = None


def resolve(model: str, *, progress: bool = True) -> Source:
    """Find out what `model` means: an alias (downloaded if need be), a file, a folder or a Hub id.

    Args:
        model: what the user wrote.
        progress: show a progress bar on stderr while an alias is downloaded.

    Raises:
        UserError: it is none of these, or the file or folder cannot be a model.
    """
    if model in ALIASES:
        from medusa_decoding.models.download import fetch

        alias = ALIASES[model]
        return Source("gguf", model, path=fetch(alias, progress=progress), alias=alias)
    path = Path(model).expanduser()
    if path.is_dir():
        return _folder(model, path)
    if path.exists():
        return _file(model, path)
    return _absent(model)


def _folder(model: str, path: Path) -> Source:
    if (path / "config.json").is_file():
        return Source("folder", model, path=path)
    ggufs = sorted(path.glob("*.gguf"))
    way_out = f"give the file itself: {ggufs[0]}" if ggufs else f"give {_FORMS}"
    raise UserError(f"{model} is a folder without config.json; {way_out}")


def _file(model: str, path: Path) -> Source:
    if not path.is_file():
        raise UserError(f"{model} is not a file that can be read; give {_FORMS}")
    if path.stat().st_size == 0:
        raise UserError(f"{model} is an empty file; download it again")
    if path.suffix.lower() == ".gguf":
        return Source("gguf", model, path=path)
    if (path.parent / "config.json").is_file():
        raise UserError(f"{model} is one file of a model; give its folder: {path.parent}")
    raise UserError(f"{model} is not a .gguf file; give {_FORMS}")


def _absent(model: str) -> Source:
    if model.lower().endswith(".gguf"):
        raise UserError(f"there is no file {model}; check the path")
    similar = difflib.get_close_matches(model.lower(), ALIASES, n=1, cutoff=0.7)
    if similar:
        raise UserError(f"there is no model '{model}'; did you mean {similar[0]}?")
    if _HUB_ID.fullmatch(model) and ".." not in model:
        return Source("hub", model, hub_id=model)
    raise UserError(f"'{model}' is no model: give one of {', '.join(ALIASES)}, {_FORMS}")
