"""The documentation as tests read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its lines, and where it begins (lines from 1)."""

    page: str
    line: int
    language: str
    lines: list[str]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    opened: Block | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened = Block(name_of(page), number, line[3:].strip(), [])
            else:
                yield opened
                opened = None
        elif opened is not None:
            opened.lines.append(line)
    assert opened is None, f"{page}: a fence is not closed"


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page outside its fenced blocks, each with its number."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def section(page: Path, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    text = page.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    level = heading.split()[0]
    ends = [text.find(f"\n{'#' * count} ") for count in range(1, len(level) + 1)]
    return text[: min((end for end in ends if end >= 0), default=len(text))]


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables in a text: rows of cells, the heading's row first."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if set("".join(cells)) != {"-"}:
                found[-1].append(cells)
        inside = line.startswith("|")
    return found
