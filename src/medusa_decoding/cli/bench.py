"""`medusa bench`: measure heads and prompt lookup on a suite of prompts, here or in a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.against import Peers, bench_against, check_alone, config_of, publish
from medusa_decoding.cli.fields import spread
from medusa_decoding.cli.loading import load_medusa
from medusa_decoding.cli.reports import check_writable, write_json
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from medusa_decoding.bench.server_config import ServerBenchConfig
    from medusa_decoding.bench.suite import Question

Json = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """A server that is measured instead of a model, and how it is put under load."""

    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Measure this OpenAI-compatible server; MODEL is its name there, if it has several.",
        ),
    ] = None
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N]",
            help="Conversations with the server at a time. Default: 1,2,4,8.",
            show_default=False,
        ),
    ] = None
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="R", help="Instead: conversations begun per second, at random times.", show_default=False
        ),
    ] = None


@spread
def bench(
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Alias (smollm2), .gguf file, folder or Hub id.", show_default=False
        ),
    ] = None,
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
    load: Server,
    peers: Peers,
    loading: take.Loading,
) -> None:
    """Measure the heads, and prompt lookup, on a suite of prompts; against other programs; or a server under
    load.

    Each prompt is decoded plainly and with guesses, in alternating order; speed and text are compared.
    """
    from medusa_decoding.bench.suite import load_suite, round_robin

    if peers.against is not None:
        if load != Server():
            raise UserError("--server is measured alone: --against server:URL puts it beside a MODEL")
        _check_model(model, load)
        against = config_of(peers, loading, choice, limit, max_tokens)
        questions = round_robin(load_suite(suite), limit)
        for path in (out, peers.markdown):
            if path not in (None, "-"):
                check_writable(Path(str(path)))
        publish(bench_against(str(model), loading, against, suite, questions), out, peers.markdown)
        return
    check_alone(peers)
    fields = {**choice.fields(), "max_tokens": max_tokens}
    if load.server is not None:
        config = _server_config(model, load, loading, {**fields, "limit": limit})
    else:
        config = None
        _check_model(model, load)
    questions = round_robin(load_suite(suite), limit)
    if out not in (None, "-"):
        check_writable(Path(str(out)))
    if config is not None:
        _publish(*_bench_server(config, suite, questions), out)
    else:
        _publish(*_bench_model(str(model), loading, suite, questions, fields, limit), out)


def _check_model(model: str | None, load: Server) -> None:
    if model is None:
        raise UserError("there is nothing to measure: give a MODEL or a --server")
    for name in ("concurrency", "rate"):
        if getattr(load, name) is not None:
            raise UserError(f"--{name} is how a server is put under load: give its --server, or leave it out")


def _server_config(
    model: str | None, load: Server, loading: take.Loading, fields: dict[str, Any]
) -> ServerBenchConfig:
    from medusa_decoding.bench.server_config import ServerBenchConfig

    for field in dataclasses.fields(loading):
        if getattr(loading, field.name) != field.default:
            flag = field.name.replace("_", "-")
            raise UserError(f"--{flag} is the server's own: give it to 'medusa serve', or leave out --server")
    loads = {name: value for name, value in vars(load).items() if value is not None}
    return ServerBenchConfig.of(model=model, **loads, **fields)


def _bench_server(
    config: ServerBenchConfig, suite: Path, questions: Sequence[Question]
) -> tuple[Json, Table]:
    from medusa_decoding.bench.server import bench_server, loads_of, model_at, variants_at
    from medusa_decoding.bench.server_report import build_report, table
    from medusa_decoding.distill.progress import JobProgress

    name = model_at(config)
    variants = variants_at(config, name, questions[0])
    turns = sum(len(question.turns) for question in questions)
    with JobProgress("answers", turns * len(variants) * len(loads_of(config))) as progress:
        runs = bench_server(config, name, variants, questions, progress.advance)
    report = build_report(config, name, suite, questions, runs)
    return report, table(report)


def _bench_model(
    model: str,
    loading: take.Loading,
    suite: Path,
    questions: Sequence[Question],
    fields: dict[str, Any],
    limit: int | None,
) -> tuple[Json, Table]:
    from medusa_decoding.generation.options import GenerationOptions

    chosen = GenerationOptions.of(None, fields)
    medusa = load_medusa(model, loading)
    from medusa_decoding.bench.report import build_report, table
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
    report = build_report(medusa, suite, questions, chosen, settings, comparisons, skipped)
    return report, table(report)


def _publish(report: Json, table: Table, out: str | None) -> None:
    from rich.console import Console

    Console(stderr=out == "-").print(table)
    write_json(report, out)


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
