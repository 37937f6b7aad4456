"""`medusa plot`: pictures of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medusa_decoding.cli.terminal import note

if TYPE_CHECKING:
    from medusa_decoding.plots.picture import Picture


def plot(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT.json",
            help="Files that medusa wrote; their kinds are found out.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the pictures.", show_default=False)
    ],
    theme: Annotated[Literal["light", "dark", "both"], typer.Option(help="Light is for print too.")] = "both",
    form: Annotated[Literal["svg", "png", "both"], typer.Option("--format", help="Of the files.")] = "both",
) -> None:
    """Draw pictures of results, each with a caption that says what to see.

    Takes reports of bench, profile and tune, the training.json beside heads, and decodes recorded by 'medusa
    generate --trace'. DIR gets NAME-light.svg and so on, and index.md, which shows them all.
    """
    from medusa_decoding.plots.write import (
        ALL_FORMATS,
        ALL_THEMES,
        INDEX,
        check_installed,
        page,
        pictures_of,
        write_page,
        write_pictures,
    )

    check_installed()
    themes = ALL_THEMES if theme == "both" else (theme,)
    formats = ALL_FORMATS if form == "both" else (form,)
    pictures = pictures_of(results)
    with _progress(len(pictures)) as advance:
        write_pictures(pictures, out, themes, formats, advance)
    write_page(out / INDEX, page(pictures, themes, formats[0]))
    for picture in pictures:
        print(f"{out / picture.name}: {picture.title}")
    note(f"{len(pictures)} pictures and their captions: {out / INDEX}")


@contextmanager
def _progress(pictures: int) -> Iterator[Callable[[Picture], None]]:
    """A bar on stderr, where that is a terminal; yields what to call after each picture."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("drawing", total=pictures)
        yield lambda picture: progress.update(task, advance=1, description=picture.name)
