"""Heads onto the Hub: their files, and a model card made from their records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.generation.packaged import heads_folder
from medusa_decoding.heads.config import HeadsConfig
from medusa_decoding.heads.location import BESIDE, files_of
from medusa_decoding.heads.plain import read_arrays
from medusa_decoding.hub.repository import Repository
from medusa_decoding.training.card import CARD_FILE, Origin, card_without_record, is_edited
from medusa_decoding.training.push_config import PushConfig
from medusa_decoding.training.report import RECORD_FILE, TrainingReport, load_report, model_card, origin_of
from medusa_decoding.training.tune_card import with_tuning
from medusa_decoding.training.tune_report import load_tuning

# Names that mean heads in any repository; config.json and model.safetensors may be a base model's.
_OF_HEADS = {
    "medusa_config.json", "medusa_heads.safetensors", "medusa_lm_head.safetensors", "medusa_lm_head.pt",
    *BESIDE,
} - {CARD_FILE}  # fmt: skip


@dataclass(frozen=True)
class Pushable:
    """Heads that may be pushed.

    files: name → where it is, the card left out. edited_card: the card in their folder where somebody edited
    it by hand; None where one is made.
    """

    config: HeadsConfig
    files: dict[str, Path]
    edited_card: str | None
    record: TrainingReport | None
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def needs_its_base(self) -> bool:
        """Whether the base model was trained with these heads (Medusa-2)."""
        return self.record is not None and bool(self.record.joint)

    def origin(self, config: PushConfig) -> Origin:
        """What the Hub is told of them, as far as settings and records say it."""
        found = Origin.of(self.config.base_model) if self.record is None else origin_of(self.record)
        return found.with_(base_model=config.base_model, licence=config.license, repo=str(config.hub_id))

    def card(self, origin: Origin) -> str:
        """The edited card, or one made from the records."""
        if self.edited_card is not None:
            return self.edited_card
        card = card_without_record(self.config, origin)
        if self.record is not None:
            try:
                card = model_card(self.record, origin)
            except (LookupError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.folder / RECORD_FILE} is no whole record of a training ({error!r}):"
                    " mend it, or delete it"
                ) from error
        tuning = load_tuning(self.folder)
        return card if tuning is None else with_tuning(card, tuning)


@dataclass(frozen=True)
class Pushed:
    """What was pushed. url: of the commit. is_new: False where the Hub had all of it already.

    removed: files of other heads that were there. kept_card: the card there was edited by hand and stays.
    """

    url: str
    is_new: bool
    removed: list[str] = field(default_factory=list)
    kept_card: bool = False


def pushable(config: PushConfig, *, progress: bool = False) -> Pushable:
    """Look at the heads, without asking the Hub anything (but for heads that are there).

    Raises UserError where there are none, they are damaged, or settings and card contradict each other.
    """
    folder = heads_folder(config.heads, progress=progress)
    names = files_of(folder)
    heads, _ = read_arrays(folder)
    card = (folder / CARD_FILE).read_text(encoding="utf-8") if CARD_FILE in names else None
    edited = card if card is not None and is_edited(card) else None
    if edited is not None and (config.base_model or config.license):
        raise UserError(
            f"{folder / CARD_FILE} was edited by hand: write base model and licence there, or delete it"
            " to have a new one made"
        )
    files = {name: (folder / name).resolve() for name in names if name != CARD_FILE}
    return Pushable(heads, files, edited, load_report(folder), folder)


def push(config: PushConfig, heads: Pushable, *, progress: bool = False) -> Pushed:
    """Push in one commit; repository and branch are created if need be.

    Files of other heads that the repository held are removed. A card there that somebody edited by hand stays
    unless the settings say otherwise. Raises UserError where nobody is logged in, the Hub refuses or cannot
    be reached.
    """
    repository = Repository.opened(config.hub_id, private=config.private, progress=progress)
    there = repository.files()
    card = heads.card(_licensed(heads.origin(config), repository))
    kept = not config.replace_card and CARD_FILE in there and _stays(repository.text(CARD_FILE), card)
    files: dict[str, Path | bytes] = {**heads.files}
    if not kept:
        files[CARD_FILE] = card.encode()
    removed = [name for name in there if name in _OF_HEADS and name not in files]
    done = repository.commit(files, removed, config.commit_message)
    return Pushed(done.url, done.is_new, removed, kept)


def _licensed(origin: Origin, repository: Repository) -> Origin:
    """With the base model's licence, where only the Hub knows it."""
    if origin.licence is not None or origin.base_model is None:
        return origin
    licence = repository.licence_of(origin.base_model)
    # "other" says nothing without the name and the address that go with it.
    return origin.with_(base_model=None, licence=None if licence == "other" else licence, repo=None)


def _stays(there: str, card: str) -> bool:
    return is_edited(there) and there.strip() != card.strip()
