"""`medusa generate`: one prompt, one text."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.fields import spread
from medusa_decoding.cli.loading import is_lossless, load_medusa
from medusa_decoding.cli.reports import check_writable
from medusa_decoding.cli.terminal import figures, note, write_pieces
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write

if TYPE_CHECKING:
    from medusa_decoding.generation import Generation, Medusa, Stream


@spread
def generate(
    *,
    model: take.Model,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt", "-p", metavar="TEXT|-", help="The prompt; - reads stdin.", show_default=False
        ),
    ],
    system: take.System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Give the prompt as it is, without chat template.")
    ] = False,
    max_tokens: take.MaxTokens = 256,
    sampling: take.Sampling,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text. May be given several times."),
    ] = None,
    no_heads: take.NoHeads = False,
    loading: take.Loading,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the text.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write each step with its draft tree, for 'medusa plot'."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No statistics, no progress bars.")] = False,
) -> None:
    """Write the text that follows a prompt.

    The text goes to stdout as it is written, one line of statistics to stderr.
    """
    from medusa_decoding.generation.options import GenerationOptions

    fields = {**sampling.fields(), "max_tokens": max_tokens, "stop": tuple(stop or ()), "raw": raw}
    chosen = GenerationOptions.of(None, fields)
    messages = _messages(prompt, system, raw)
    if trace is not None:
        check_writable(trace)
    medusa = load_medusa(model, loading, no_heads=no_heads, progress=not quiet)
    stream = medusa.stream(messages, chosen)
    with _traced(medusa, stream, trace):
        if as_json:
            for _ in stream:
                pass
            print(json.dumps(as_object(medusa, stream.result), ensure_ascii=False))
        else:
            write_pieces(stream)
    if not quiet:
        note(figures(stream.result, lossless=is_lossless(medusa)))


@contextmanager
def _traced(medusa: Medusa, stream: Stream, path: Path | None) -> Iterator[None]:
    """Record the steps of what is done inside, and write them to `path`, if there is one."""
    if path is None:
        yield
        return
    from medusa_decoding.generation.trace import Tracer

    tracer = Tracer(medusa)
    stream.watch = tracer.add
    yield
    trace = tracer.trace(list(stream.sequence.prompt), stream.result)
    with atomic_write(path) as temporary:
        temporary.write_text(trace.model_dump_json(indent=1) + "\n", encoding="utf-8")


def as_object(medusa: Medusa, generation: Generation) -> dict[str, Any]:
    """What `--json` prints."""
    statistics = generation.statistics
    return {
        "text": generation.text,
        "tokens": generation.tokens,
        "finish_reason": generation.finish_reason,
        "model": medusa.name,
        "heads": medusa.heads_name,
        "lookup": medusa.lookup is not None,
        "lossless": is_lossless(medusa),
        "statistics": {
            **dataclasses.asdict(statistics),
            "tokens_per_second": statistics.tokens_per_second,
            "acceleration_rate": statistics.acceleration_rate,
        },
    }


def _messages(prompt: str, system: str | None, raw: bool) -> str | list[dict[str, Any]]:
    if system is not None and raw:
        raise UserError("--system needs the chat template that --raw turns off: leave one out")
    text = read_stdin() if prompt == "-" else as_utf8(prompt)
    if not text.strip() and not raw:
        raise UserError("the prompt is empty: give a text with -p, or one on stdin with -p -")
    if system is None:
        return text
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def read_stdin() -> str:
    """All of standard input, without the newline that ends its last line."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError:
        raise UserError("stdin is not UTF-8 text: convert it first") from None


def as_utf8(argument: str) -> str:
    """An argument of the command line, which Python may have read in another encoding than UTF-8."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise UserError("the prompt is not UTF-8 text: convert it first") from None
