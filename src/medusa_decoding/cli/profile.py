"""`medusa profile`: measure this machine with a model, so that trees can be as large as pays."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.fields import spread
from medusa_decoding.cli.loading import load_medusa
from medusa_decoding.cli.terminal import note

if TYPE_CHECKING:
    from rich.table import Table

    from medusa_decoding.tuning import Key, Profile


@spread
def profile(
    *,
    model: take.Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    placing: take.Placing,
) -> None:
    """Measure what draft trees cost on this machine.

    Times passes of 1 to 32 rows after 256, 2048 and 8192 tokens, and the heads, in one or two minutes. The
    figures are kept for --tree auto, which else makes do with a quick look.
    """
    # A tree that needs no figures itself.
    medusa = load_medusa(model, take.Loading(**vars(placing), tree="1"))
    from medusa_decoding.tuning import key_of, measure
    from medusa_decoding.tuning.machine import describe_machine

    with _progress() as advance:
        drafter = medusa.drafter if medusa.heads_name is not None else None
        found = measure(medusa.engine, drafter, progress=advance)
    key = key_of(medusa.engine, model=medusa.fingerprint, heads=medusa.heads_name)
    held = {
        "machine": describe_machine(),
        "model": medusa.name,
        "engine": key.engine,
        "threads": key.threads,
        "heads": medusa.heads_name,
    }
    if as_json:
        sys.stdout.write(json.dumps({**found.report(), **held}) + "\n")
    else:
        _show(found, held)
    _keep(key, found)


def _keep(key: Key, found: Profile) -> None:
    """Keep the figures, but not those of a busy machine in place of better ones."""
    from medusa_decoding.tuning import load_profile, save_profile

    if not found.is_quiet:
        note("the machine was busy with other programs: measure again when it is quiet")
        before = load_profile(key)
        if before is not None and before.is_quiet:
            note("not kept for --tree auto: the figures from before are better")
            return
    try:
        note(f"kept for --tree auto: {save_profile(key, found)}")
    except OSError as error:
        note(f"not kept for --tree auto: {error.strerror or error}")


def _show(found: Profile, held: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    console.print(table(found))
    for line in (*bounds(found), f"{held['model']} on {held['engine']}, {held['threads']} threads"):
        console.print(line, highlight=False)
    console.print(f"{held['machine']['cpu']}, {held['machine']['cores']} cores", highlight=False)


def table(found: Profile) -> Table:
    """Milliseconds by rows and context; for the shortest, also as multiples of one row and of the bound."""
    from rich.table import Table

    contexts, bound = list(found.measured.contexts), found.bandwidth_bound_ms
    shown = Table(title="milliseconds of a pass")
    shown.add_column("rows", justify="right")
    for context in contexts:
        shown.add_column(f"{context} tokens", justify="right")
    for name in ("÷ one row", *(["÷ bound"] if bound else [])):
        shown.add_column(name, justify="right")
    for place, rows in enumerate(found.measured.rows):
        times = [found.measured.contexts[context][place] for context in contexts]
        ratios = [times[0] / found.measured.contexts[contexts[0]][0], *([times[0] / bound] if bound else [])]
        shown.add_row(str(rows), *(f"{time:.2f}" for time in times), *(f"{ratio:.2f}" for ratio in ratios))
    return shown


def bounds(found: Profile) -> Iterator[str]:
    """What drafting takes, and how fast a pass could be at best."""
    if found.drafts:
        yield f"drafting: {found.measured.draft(1):.2f} ms"
    if found.weight_bytes is not None:
        size = f"weights: {found.weight_bytes / 1e6:.1f} MB a pass"
        reads = found.read_bandwidth_gb_s
        yield (
            size
            if not reads
            else f"{size}, read at {reads:.1f} GB/s: {found.bandwidth_bound_ms:.2f} ms at best"
        )


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """A bar on stderr, where that is a terminal; yields what to call with the share done and what comes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=1.0)
        yield lambda share, what: progress.update(task, completed=share, description=what)
