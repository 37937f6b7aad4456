"""`medusa bench --against`: the heads and lookup beside what people would use instead."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.loading import load_medusa
from medusa_decoding.cli.reports import write_json, write_text
from medusa_decoding.cli.terminal import note
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.bench.peers.config import AgainstConfig
    from medusa_decoding.bench.peers.result import AgainstResult
    from medusa_decoding.bench.suite import Question
    from medusa_decoding.generation import Medusa


@dataclass(frozen=True)
class Peers:
    """What a model is measured against; views of `AgainstConfig`, and where its Markdown goes."""

    against: Annotated[
        str | None,
        typer.Option(
            metavar="PEER[,PEER]",
            help="Race these on the same prompts: autoregressive, lookup, transformers, transformers-int8,"
            " transformers-prompt-lookup, llama.cpp, llama.cpp-lookup, server:URL.",
        ),
    ] = None
    peer_limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="--against: only the first N prompts for transformers, which is slow. Default: 10.",
            show_default=False,
        ),
    ] = None
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="--against: write its tables to a file.", show_default=False),
    ] = None
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="--against: the text whose perplexity shows how good weights are. Default: a packaged one.",
            show_default=False,
        ),
    ] = None
    llama_python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="--against: the Python that has llama-cpp-python. Default: this one.",
            show_default=False,
        ),
    ] = None
    llama_no_repack: Annotated[
        bool,
        typer.Option(
            "--llama-no-repack", help="--against: llama.cpp without repacked weights (--no-repack)."
        ),
    ] = False


def check_alone(peers: Peers) -> None:
    """See that nothing asks for peers that are not there; raises UserError."""
    for field in dataclasses.fields(peers):
        if getattr(peers, field.name) != field.default:
            flag = field.name.replace("_", "-")
            raise UserError(f"--{flag} is for --against: name peers there, or leave it out")


def config_of(
    peers: Peers, loading: take.Loading, choice: take.Choice, limit: int | None, max_tokens: int
) -> AgainstConfig:
    """The race's settings; raises UserError where something does not go with it."""
    from medusa_decoding.bench.peers.config import AgainstConfig

    if choice != take.Choice(seed=choice.seed):
        raise UserError("--against compares greedy decoding: leave out --temperature and --top-p")
    if loading.acceptance != "exact":
        raise UserError("--against compares the base model's own texts: leave out --acceptance typical")
    if loading.adapter is not None:
        raise UserError("--against runs the base model as it is everywhere: leave out --adapter")
    fields = {
        "peer_limit": peers.peer_limit,
        "text": peers.text,
        "llama_python": peers.llama_python,
        "limit": limit,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    repack = not peers.llama_no_repack
    return AgainstConfig.of(against=peers.against, max_tokens=max_tokens, llama_repack=repack, **given)


def bench_against(
    model: str, loading: take.Loading, config: AgainstConfig, suite: Path, questions: Sequence[Question]
) -> AgainstResult:
    """Load and measure."""
    medusa = load_medusa(model, loading)
    from medusa_decoding.bench.peers.against import measure
    from medusa_decoding.bench.peers.report import build_result
    from medusa_decoding.distill.progress import JobProgress
    from medusa_decoding.models import resolve

    threads = _threads(medusa, loading)
    with ExitStack() as stack:
        measured = measure(
            medusa,
            resolve(model),
            config,
            questions,
            _weights(medusa, loading),
            threads,
            note,
            lambda runs: stack.enter_context(JobProgress("runs", runs)),
        )
    settings = {
        **config.model_dump(mode="json", exclude={"llama_python", "text"}),
        "draft": loading.draft,
        "tree": loading.tree,
        "kv_cache": loading.kv_cache,
        "quantization": loading.quantization,
    }
    command = f"medusa {shlex.join(sys.argv[1:])}"
    return build_result(medusa, measured, command=command, suite=suite, settings=settings, threads=threads)


def publish(result: AgainstResult, out: str | None, markdown: Path | None) -> None:
    """Show the table, write the files."""
    from rich.console import Console

    from medusa_decoding.bench.peers import tables

    Console(stderr=out == "-").print(tables.terminal_table(result))
    for line in tables.left_out(result):
        note(line)
    write_json(result.model_dump(mode="json"), out)
    if markdown is not None:
        write_text(markdown, tables.markdown(result))


def _threads(medusa: Medusa, loading: take.Loading) -> int:
    found: Any = getattr(medusa.engine, "threads", None) or loading.threads
    if found is None:
        import torch

        return torch.get_num_threads()
    return int(found)


def _weights(medusa: Medusa, loading: take.Loading) -> str:
    """How they are held, in a word."""
    dtype = getattr(medusa.engine, "dtype", None)
    if dtype is None:
        return loading.weights
    return loading.quantization or str(dtype).removeprefix("torch.").replace("float", "fp")
