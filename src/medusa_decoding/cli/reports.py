"""Where the results of measuring go: files, whole or not at all, and the standard output."""

from __future__ import annotations

import json
import os
import sys
from errno import EISDIR
from pathlib import Path
from typing import Any

from medusa_decoding.cli.terminal import note
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write


def check_writable(path: Path) -> None:
    """See before hours of measuring that the report can be written; raises UserError if not."""
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        with atomic_write(path.with_name(f"{path.name}.trial")):
            pass
        path.with_name(f"{path.name}.trial").unlink()
    except OSError as error:
        raise UserError(
            f"the report cannot be written to {path} ({error.strerror}): give another file"
        ) from None


def write_json(report: dict[str, Any], out: str | None) -> None:
    """To the file `out`, to the standard output for "-", or nowhere for None."""
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    if out == "-":
        sys.stdout.write(text)
    elif out is not None:
        write_text(Path(out), text)


def write_text(path: Path, text: str) -> None:
    """A report's file, and say so."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    note(f"report: {path}")
