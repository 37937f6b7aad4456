"""Results to a folder of pictures, and a page that shows them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.plots.kinds import KINDS
from medusa_decoding.plots.picture import Format, Picture
from medusa_decoding.plots.results import read_results
from medusa_decoding.plots.theme import THEMES, Name

INDEX = "index.md"
ALL_FORMATS: tuple[Format, ...] = ("svg", "png")
ALL_THEMES: tuple[Name, ...] = ("light", "dark")


def check_installed() -> None:
    """Raises UserError where there is no matplotlib."""
    if find_spec("matplotlib") is None:
        raise UserError("pictures are drawn by matplotlib: pip install 'medusa-decoding[plot]'")


def pictures_of(results: Sequence[Path]) -> list[Picture]:
    """The pictures of these result files, in the order of `KINDS`. Raises UserError, see `read_results`."""
    found = read_results(results, KINDS)
    return [picture for place in sorted(found) for picture in KINDS[place].pictures(found[place])]


def write_pictures(
    pictures: Sequence[Picture],
    folder: Path,
    themes: Sequence[Name] = ALL_THEMES,
    formats: Sequence[Format] = ALL_FORMATS,
    drawn: Callable[[Picture], None] | None = None,
) -> None:
    """Draw each picture in each theme and format, as NAME-THEME.FORMAT. drawn: called after each picture."""
    for picture in pictures:
        for theme in themes:
            for form in formats:
                with atomic_write(folder / f"{picture.name}-{theme}.{form}") as temporary:
                    picture.save(temporary, THEMES[theme])
        if drawn is not None:
            drawn(picture)


def page(
    pictures: Sequence[Picture],
    themes: Sequence[Name],
    form: Format,
    beside: str = "",
    title: str = "Pictures",
) -> str:
    """Markdown that shows the pictures with their captions. beside: folder of the pictures, as seen from the
    page, with a slash at its end.
    """
    return "".join([f"# {title}\n", *(_section(picture, themes, form, beside) for picture in pictures)])


def _section(picture: Picture, themes: Sequence[Name], form: Format, beside: str) -> str:
    files = {theme: f"{beside}{picture.name}-{theme}.{form}" for theme in themes}
    described = html.escape(picture.title, quote=True)
    image = f'<img alt="{described}" src="{files[themes[0]]}">'
    if len(themes) > 1:
        source = f'<source media="(prefers-color-scheme: dark)" srcset="{files["dark"]}">'
        image = f"<picture>{source}{image}</picture>"
    sources = ", ".join(f"`{name}`" for name in picture.sources)
    return f"\n## {picture.title}\n\n{image}\n\n{picture.caption}\n\nFrom {sources}.\n"


def write_page(path: Path, text: str) -> None:
    """Write the page, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
