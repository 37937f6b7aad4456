"""Write docs/reference/cli.md: what each verb's --help says.

Run it without arguments after a change of the command line; a test compares the page with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner

from medusa_decoding.cli.main import app

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
INTRODUCTION = """# Command line

What `medusa VERB --help` says. This page is made by `tools/cli_reference.py`.
"""


def reference() -> str:
    """The page."""
    verbs = [command.name or "" for command in app.registered_commands]
    sections = [("medusa", _help()), *((f"medusa {verb}", _help(verb)) for verb in verbs)]
    return "\n".join([INTRODUCTION, *(f"## {name}\n\n```text\n{text}```\n" for name, text in sections)])


def _help(*verb: str) -> str:
    shown = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}).invoke(
        app, [*verb, "--help"], prog_name="medusa"
    )
    assert shown.exit_code == 0, shown.output
    return "".join(f"{line.rstrip()}\n" for line in shown.output.strip().splitlines())


def main() -> int:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
