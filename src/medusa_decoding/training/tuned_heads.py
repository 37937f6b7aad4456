"""Where tuned heads go: into their own folder, or a copy of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.packaged import heads_folder, packaged_heads
from medusa_decoding.heads.config import CONFIG_FILE, HeadsConfig, write_config
from medusa_decoding.heads.location import WEIGHTS_FILE
from medusa_decoding.hub import HubId
from medusa_decoding.training.card import CARD_FILE
from medusa_decoding.training.report import RECORD_FILE
from medusa_decoding.training.tune_card import with_tuning
from medusa_decoding.training.tune_config import TuneConfig
from medusa_decoding.training.tune_report import TUNING_FILE, TuneReport

# What goes with the weights into a copy.
_BESIDE = (CARD_FILE, RECORD_FILE)


@dataclass(frozen=True)
class Target:
    """Heads to be written. origin: where the heads are. folder: where they go."""

    origin: Path
    folder: Path

    @property
    def is_copy(self) -> bool:
        """Whether the heads stay as they are."""
        return self.origin != self.folder


def folder_of(medusa: Medusa) -> Path:
    """The folder that the loaded heads are from; in the local cache where they are from the Hub."""
    return heads_folder(medusa.heads_name or "")


def target_of(config: TuneConfig, medusa: Medusa) -> Target | None:
    """Where the tuned heads will be written; None for packaged heads without `out`.

    Raises UserError, before anything is measured, where heads would be overwritten or cannot be written.
    """
    folder = folder_of(medusa)
    if config.out is not None:
        if config.out.resolve() == folder.resolve():
            return target_of(config.model_copy(update={"out": None}), medusa)
        if (config.out / CONFIG_FILE).exists():
            raise UserError(f"{config.out} holds heads already: give a new folder for the calibrated copy")
        return Target(folder, config.out)
    if folder in packaged_heads().values():
        return None
    if _is_on_the_hub(medusa):
        raise UserError(
            f"the heads {medusa.heads_name} are on the Hub: give a folder for a calibrated copy with --out"
        )
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"the heads {medusa.heads_name} are in a layout without a place for a calibration:"
            " give a folder for a copy with --out"
        )
    return Target(folder, folder)


def _is_on_the_hub(medusa: Medusa) -> bool:
    name = medusa.heads_name or ""
    return not Path(name).expanduser().is_dir() and HubId.parse(name) is not None


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
    origin = target.origin
    if not (origin / CONFIG_FILE).is_file():
        from medusa_decoding.heads import from_pretrained, save_pretrained

        save_pretrained(from_pretrained(target.origin), target.folder)
        return
    for name in (WEIGHTS_FILE, *_BESIDE):
        if (origin / name).is_file():
            with atomic_write(target.folder / name) as temporary:
                shutil.copyfile(origin / name, temporary)
