"""`medusa bench`: measure heads and prompt lookup on a suite of prompts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EISDIR
from pathlib import Path
from typing import Annotated, Any

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.fields import spread
from medusa_decoding.cli.loading import load_medusa
from medusa_decoding.cli.terminal import note
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write


@spread
def bench(
    *,
    model: take.Model,
    suite: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="Questions in Spec-Bench's form.", show_default=False)
    ],
    out: Annotated[
        str | None, typer.Option("--json", metavar="OUT", help="Write the report to a file; - is stdout.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only N questions, in turn from each category.")
    ] = None,
    max_tokens: take.MaxTokens = 128,
    choice: take.Choice,
    loading: take.Loading,
) -> None:
    """Measure the heads, and prompt lookup, on a suite of prompts.

    Each prompt is decoded plainly and with guesses, in alternating order; speed and text are compared.
    """
    from medusa_decoding.bench.suite import load_suite, round_robin
    from medusa_decoding.generation.options import GenerationOptions

    chosen = GenerationOptions.of(None, {**choice.fields(), "max_tokens": max_tokens})
    questions = round_robin(load_suite(suite), limit)
    if out not in (None, "-"):
        check_writable(Path(str(out)))
    medusa = load_medusa(model, loading)
    from medusa_decoding.bench.report import build_report
    from medusa_decoding.bench.run import run_suite

    with _progress(sum(len(question.turns) for question in questions)) as advance:
        comparisons, skipped = run_suite(medusa, questions, chosen, advance)
    settings = {
        "limit": limit,
        "draft": loading.draft,
        "tree": loading.tree,
        "acceptance": loading.acceptance,
        "quantization": loading.quantization,
        "adapter": loading.adapter,
    }
    _publish(build_report(medusa, suite, questions, chosen, settings, comparisons, skipped), out)


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


def _publish(report: dict[str, Any], out: str | None) -> None:
    from rich.console import Console

    from medusa_decoding.bench.report import table

    Console(stderr=out == "-").print(table(report))
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    if out == "-":
        sys.stdout.write(text)
    elif out is not None:
        with atomic_write(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        note(f"report: {out}")


@contextmanager
def _progress(turns: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr with the time left; yields what to call after each turn."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("turns, both ways", total=turns)
        yield lambda: progress.advance(task)
