"""Which heads are meant: named ones, an alias' own, or packaged ones trained for the same weights."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_decoding.heads.location import folder_of

if TYPE_CHECKING:
    from medusa_decoding.models import Source


def packaged_heads() -> dict[str, Path]:
    """The heads that come with this package: name and folder."""
    root = Path(str(files("medusa_decoding") / "assets"))
    return {
        folder.name: folder for folder in sorted(root.glob("*")) if (folder / "medusa_config.json").is_file()
    }


def heads_folder(heads: str | Path, *, progress: bool = False) -> Path:
    """The folder of packaged heads ("smollm2", "packaged:smollm2"), or of those in a folder or on the Hub.

    progress: show a download. Raises UserError where there are none.
    """
    return packaged_heads().get(str(heads).removeprefix("packaged:")) or folder_of(heads, progress=progress)


def heads_location(heads: str | Path | None, source: Source, fingerprint: str) -> Path | None:
    """Where the heads are; "auto": the alias' own, or packaged ones for these weights; None: no heads."""
    if heads is None:
        return None
    packaged = packaged_heads()
    if heads != "auto":
        return heads_folder(heads)
    if source.alias is not None and source.alias.default_heads in packaged:
        return packaged[source.alias.default_heads]
    for folder in packaged.values():
        config = json.loads((folder / "medusa_config.json").read_text(encoding="utf-8"))
        if config.get("base_fingerprint") == fingerprint:
            return folder
    return None


def heads_name(heads: str | Path | None, location: Path) -> str:
    """What heads are called in results."""
    return str(heads) if heads != "auto" else f"packaged:{location.name}"
