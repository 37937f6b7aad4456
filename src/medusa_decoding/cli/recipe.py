"""`medusa recipe`: from a base model to its heads with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medusa_decoding.cli.terminal import note
from medusa_decoding.training.recipe import follow, load_recipe


def recipe(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The recipe.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of answers and heads; a run that was stopped there is resumed.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Another base model than the recipe's.", show_default=False),
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Prompts files instead of the recipe's; may be given several times.",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Prompts files (evaluations) instead of the recipe's whose like is left out; may be given"
            " several times.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make heads for a model from nothing: distil its answers, then train heads on them.

    A run that was stopped resumes when the command is given again.
    """
    given = {"model": model} if model else {}
    distill = {name: paths for name, paths in (("prompts", prompts), ("exclude", exclude)) if paths}
    chosen = load_recipe(file, out=out, distill=distill, **given)
    report = follow(chosen, on_answers=lambda answers: note(str(answers)))
    if summary := report.summary():
        note(summary)
    print(chosen.train.out)
