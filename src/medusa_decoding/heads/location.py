"""Where heads are: in a folder, or on the Hub."""

from __future__ import annotations

from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import CONFIG_FILE
from medusa_decoding.hub import HubId
from medusa_decoding.hub.download import snapshot

WEIGHTS_FILE = "medusa_heads.safetensors"
BESIDE = ("README.md", "training.json", "tuning.json", "recipe.yaml", "medusa_choices.json")
"""What may stand beside heads and goes where they go: their card, how they came about, their static tree."""
_OWN_LAYOUT = (CONFIG_FILE, WEIGHTS_FILE)


def folder_of(location: str | Path, *, progress: bool = False) -> Path:
    """The folder that holds the heads.

    location: a folder or, if there is none of that name, `owner/name` or `owner/name@revision` on the Hub,
    of which only the files of heads are downloaded, once. progress: show that. Raises UserError where there
    is neither.
    """
    folder = Path(location).expanduser()
    if folder.is_dir():
        return folder
    hub_id = HubId.parse(str(location))
    if hub_id is None:
        from medusa_decoding.heads.formats import files_looked_for

        raise UserError(
            f"No Medusa heads at '{location}': give a folder or a Hub id with {files_looked_for()}."
        )
    folder = snapshot(hub_id, [*_OWN_LAYOUT, *BESIDE], progress=progress)
    return folder if (folder / CONFIG_FILE).is_file() else _in_another_layout(hub_id, progress)


def files_of(folder: Path) -> list[str]:
    """Names of the files of the heads in `folder`, those beside them too, and nothing else that is there.

    Raises UserError where the folder holds no heads, or has them among a base model's weights.
    """
    layout: tuple[str, ...] = _OWN_LAYOUT
    if not (folder / CONFIG_FILE).is_file():
        from medusa_decoding.heads.formats import FORMATS, detect

        found = detect(folder)
        if found == "full":
            raise UserError(
                f"{folder} has its heads among the base model's weights: make a folder of heads alone with"
                " `medusa convert`, or push the whole of it with `hf upload`"
            )
        layout = FORMATS[found].FILES
    return [name for name in (*layout, *BESIDE) if (folder / name).is_file()]


def _in_another_layout(hub_id: HubId, progress: bool) -> Path:
    """A base model's id given by mistake has files of some layouts, too: what is large comes last."""
    from medusa_decoding.heads.formats import FORMATS, SMALL_FILES, files_looked_for

    wanted = [*SMALL_FILES, *BESIDE]
    folder = snapshot(hub_id, wanted, progress=progress)
    if large := _large_files(folder):
        folder = snapshot(hub_id, [*wanted, *large], progress=progress)
    if not any(layout.matches(folder) for layout in FORMATS.values()):
        raise UserError(f"No Medusa heads in {hub_id} on the Hub: looked for {files_looked_for()}.")
    return folder


def _large_files(folder: Path) -> list[str]:
    """What else to download, now that the small files tell."""
    from medusa_decoding.heads.formats import full, medusa_lm_head, vllm

    if medusa_lm_head.has_weights(folder):
        return []
    return [vllm.WEIGHTS_FILE] if vllm.matches(folder) else full.weight_files(folder)
