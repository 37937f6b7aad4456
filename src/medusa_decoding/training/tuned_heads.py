"""Where tuned heads go: into their own folder, or a copy of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.packaged import packaged_heads
from medusa_decoding.heads.config import CONFIG_FILE, HeadsConfig, write_config
from medusa_decoding.heads.plain import WEIGHTS_FILE
from medusa_decoding.training.report import CARD_FILE, RECORD_FILE
from medusa_decoding.training.tune_card import with_tuning
from medusa_decoding.training.tune_config import TuneConfig
from medusa_decoding.training.tune_report import TuneReport

TUNING_FILE = "tuning.json"
# What goes with the weights into a copy.
_BESIDE = (CARD_FILE, RECORD_FILE)


@dataclass(frozen=True)
class Target:
    """Heads to be written. origin: where the heads are (a folder or a Hub id). folder: where they go."""

    origin: str
    folder: Path

    @property
    def is_copy(self) -> bool:
        """Whether the heads stay as they are."""
        return Path(self.origin) != self.folder


def folder_of(medusa: Medusa) -> Path | None:
    """The folder that the loaded heads are from; None where they are from the Hub."""
    name = medusa.heads_name or ""
    path = packaged_heads().get(name.removeprefix("packaged:")) or Path(name)
    return path if path.is_dir() else None


def target_of(config: TuneConfig, medusa: Medusa) -> Target | None:
    """Where the tuned heads will be written; None for packaged heads without `out`.

    Raises UserError, before anything is measured, where heads would be overwritten or cannot be written.
    """
    folder = folder_of(medusa)
    origin = str(folder or medusa.heads_name)
    if config.out is not None:
        if folder is not None and config.out.resolve() == folder.resolve():
            return target_of(config.model_copy(update={"out": None}), medusa)
        if (config.out / CONFIG_FILE).exists():
            raise UserError(f"{config.out} holds heads already: give a new folder for the calibrated copy")
        return Target(origin, config.out)
    if folder is not None and folder in packaged_heads().values():
        return None
    if folder is None or not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"the heads {medusa.heads_name} are in a layout without a place for a calibration:"
            " give a folder for a copy with --out"
        )
    return Target(origin, folder)


def write_tuned(target: Target, config: HeadsConfig, report: TuneReport) -> None:
    """Write config, `tuning.json` and, where there is a model card, its section; weights first in a copy.

    Each file is whole or absent.
    """
    if target.is_copy:
        _copy_weights(target)
    write_config(target.folder / CONFIG_FILE, config)
    with atomic_write(target.folder / TUNING_FILE) as temporary:
        text = json.dumps(report.record(), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    card = target.folder / CARD_FILE
    if card.is_file():
        text = with_tuning(card.read_text(encoding="utf-8"), report)
        with atomic_write(card) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _copy_weights(target: Target) -> None:
    origin = Path(target.origin)
    if not (origin / CONFIG_FILE).is_file():
        from medusa_decoding.heads import from_pretrained, save_pretrained

        save_pretrained(from_pretrained(target.origin), target.folder)
        return
    for name in (WEIGHTS_FILE, *_BESIDE):
        if (origin / name).is_file():
            with atomic_write(target.folder / name) as temporary:
                shutil.copyfile(origin / name, temporary)
