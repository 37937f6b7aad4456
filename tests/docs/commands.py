"""Shell commands of the documentation's `sh` blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from medusa_decoding.cli.main import app
from tests.docs.pages import PAGES, Block, blocks

SHELL = ("sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Command:
    """One command: where it stands, its words, and what comes in on stdin, if anything is named."""

    place: str
    words: tuple[str, ...]
    stdin: str | None = None

    @property
    def text(self) -> str:
        """As it is named in the tables of the tests."""
        return " ".join(self.words)

    @property
    def program(self) -> str:
        """What is called, behind variables that are set for it."""
        return next(word for word in self.words if not re.match(r"[A-Z_]+=", word))

    @property
    def medusa(self) -> list[str] | None:
        """What `medusa` is called with, perhaps behind a launcher; None where it is not called."""
        if self.program not in ("medusa", "accelerate") or "medusa" not in self.words:
            return None
        return list(self.words[self.words.index("medusa") + 1 :])


def documented() -> list[Command]:
    """All of them."""
    return [one for page in PAGES for block in blocks(page) if block.language in SHELL for one in _of(block)]


def _of(block: Block) -> Iterator[Command]:
    number = 0
    while number < len(block.lines):
        place, line = f"{block.page}:{block.line + 1 + number}", block.lines[number]
        while line.endswith("\\"):
            number += 1
            line = line[:-1] + " " + block.lines[number].strip()
        number += 1
        yield from _split(place, line)


def _split(place: str, line: str) -> Iterator[Command]:
    """The commands of a line, at `&&`; a comment ends it."""
    line = line.replace("<this repository>", "REPOSITORY")
    words = [*shlex.split(line, comments=True), "&&"]
    while words:
        end = words.index("&&")
        command, words = words[:end], words[end + 1 :]
        stdin = command[command.index("<") + 1] if "<" in command else None
        if command:
            yield Command(place, tuple(command[: command.index("<")] if stdin else command), stdin)


def parsed(arguments: list[str]) -> dict[str, object]:
    """What typer reads from a command line, without running it. Raises what typer raises."""
    from typer.main import get_command

    verb, *rest = arguments
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    with command.make_context(f"medusa {verb}", rest) as context:
        return dict(context.params)


def options() -> dict[str, set[str]]:
    """The flags of each verb."""
    from typer.main import get_command

    verbs = get_command(app).commands  # type: ignore[attr-defined]
    return {
        name: {flag for one in verb.params for flag in [*one.opts, *one.secondary_opts]} | {"--help", "-h"}
        for name, verb in verbs.items()
    }
