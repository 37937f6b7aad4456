"""The note beside an answers file: who wrote it, with which settings, and what became of the prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medusa_decoding.distill.config import RECORD_SUFFIX, DistillConfig
from medusa_decoding.distill.prompts import prompts_checksum
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write


def claim(config: DistillConfig, model: str, writer: str, engine: str) -> None:
    """Note who writes the answers; raises UserError if that was another writer or recipe before.

    model: its public name. writer: the fingerprint of the model. engine: what it runs on.
    """
    mine = {"fingerprint": writer, **config.recipe()}
    earlier = _read(config)
    for name, now in mine.items() if earlier else ():
        # Own prompts may come to answers that were begun without.
        was = earlier.get(name, now if name.startswith("self_prompt") else None)
        if was != now and name == "fingerprint":
            raise UserError(
                f"{config.out} was written by another model ({was!r}, not {now!r});"
                " go on with that one, or give another out file"
            )
        if was != now:
            raise UserError(
                f"{config.out} was written with {name} {was!r}, not {now!r};"
                " give the same settings to go on, or another out file"
            )
    engines = list(dict.fromkeys([*earlier.get("engines", []), engine]))
    _write(config, {**{"model": model}, **earlier, **mine, "engines": engines})


def note_counts(config: DistillConfig, counts: dict[str, Any]) -> None:
    """Put into the note which prompts there were, and what became of them."""
    files = [{"path": path.name, "sha256": prompts_checksum(path)} for path in config.prompts]
    _write(config, {**_read(config), "prompts": files, "counts": counts})


def read_note(answers: Path) -> dict[str, Any]:
    """The note beside an answers file; empty where there is none that can be read."""
    try:
        content = json.loads(answers.with_name(answers.name + RECORD_SUFFIX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(config: DistillConfig) -> dict[str, Any]:
    """The note; empty where there is none, or no answers that it could be about."""
    path = config.record_path
    begun = [config.out, config.dropped_path, config.self_prompts_path, config.waiting_path]
    if not path.is_file() or not any(one.is_file() and one.stat().st_size for one in begun):
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); give another out file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged; give another out file")
    return content


def _write(config: DistillConfig, content: dict[str, Any]) -> None:
    with atomic_write(config.record_path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
