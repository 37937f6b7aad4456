"""Which heads are meant: named ones, an alias' own, or packaged ones trained for the same weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
    """Where the heads are; None: no heads.

    "auto": the alias' own, those in the base model's own checkpoint, or packaged ones for these weights.
    """
    if heads is None:
        return None
    packaged = packaged_heads()
    if heads != "auto":
        return heads_folder(heads)
    if source.alias is not None and source.alias.default_heads in packaged:
        return packaged[source.alias.default_heads]
    if _holds_heads(source):
        return source.path or Path(str(source.hub_id))
    for folder in packaged.values():
        config = json.loads((folder / "medusa_config.json").read_text(encoding="utf-8"))
        if config.get("base_fingerprint") == fingerprint:
            return folder
    return None


def heads_name(heads: str | Path | None, location: Path) -> str:
    """What heads are called in results."""
    if heads != "auto":
        return str(heads)
    return f"packaged:{location.name}" if location in packaged_heads().values() else str(location)


def _holds_heads(source: Source) -> bool:
    """Whether heads are among the weights of the base model's own checkpoint; see `heads.formats.full`."""
    if source.kind == "gguf" or (source.path is None and source.hub_id is None):
        return False
    from medusa_decoding.models.hub import DESCRIPTIONS, folder_of
    from medusa_decoding.models.safetensors_file import SafetensorsFile

    # Of a Hub id, the weights are in the same folder: the model has been loaded.
    folder = folder_of(source, DESCRIPTIONS)
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    names: Iterable[str] = ()
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    elif single.is_file():
        names = SafetensorsFile(single).entries
    return any(name.startswith(("medusa_head.", "medusa_heads.")) for name in names)
