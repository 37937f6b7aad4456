"""The command `medusa`: its verbs, and how whatever goes wrong becomes one line and an exit status.

0: done. 1: the demo's texts differ, or a fault of this program (MEDUSA_TRACEBACK=1 shows where). 2: a mistake
the user can mend. 130: interrupted. 141: the reader of stdout left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from medusa_decoding.cli import (
    bench,
    chat,
    convert,
    demo,
    distill,
    generate,
    plot,
    profile,
    pull,
    push,
    recipe,
    serve,
    train,
    tune,
)
from medusa_decoding.cli.terminal import prepare_streams, quiet_libraries, show_warnings_in_one_line
from medusa_decoding.errors import UserError
from medusa_decoding.training.processes import complains_first

FAULT = 1
INTERRUPTED = 130
_SHOW_TRACE = "MEDUSA_TRACEBACK"
# typer brings its own copy of click in some versions and imports click in others: this finds the right one.
_ClickError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

app = typer.Typer(
    name="medusa",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from medusa_decoding import __version__

        print(f"medusa {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _medusa(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Medusa: let a language model write several tokens per forward pass, the same text as without.

    MODEL is an alias such as smollm2, a .gguf file, a folder or a Hugging Face Hub id. Begin with 'medusa
    demo'.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


for verb in (
    demo.demo,
    generate.generate,
    chat.chat,
    serve.serve,
    pull.pull,
    distill.distill,
    train.train,
    recipe.recipe,
    tune.tune,
    convert.convert,
    push.push,
    bench.bench,
    profile.profile,
    plot.plot,
):
    app.command(verb.__name__)(verb)


def main() -> None:
    """Entry point of the console script."""
    prepare_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    quiet_libraries()
    show_warnings_in_one_line()
    try:
        status = app(list(arguments), prog_name="medusa", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # typer turns the former into the latter inside a verb, and raises that for nothing else.
        return _reader_left()
    except UserError as error:
        return _complain(str(error))
    except (FileExistsError, NotADirectoryError) as error:
        return _complain(
            f"{error.filename} is in the way: it is a file, and a folder is wanted; give another"
        )
    except OSError as error:
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except _ClickError as error:
        return _complain(_usage(error))
    except Exception as error:
        if os.environ.get(_SHOW_TRACE):
            raise
        _complain(f"a fault of medusa itself, {type(error).__name__}: {error} ({_SHOW_TRACE}=1 shows where)")
        return FAULT


def _usage(error: Exception) -> str:
    message = str(error.format_message() if hasattr(error, "format_message") else error)
    message = message.replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message} (see '{context.command_path if context else 'medusa'} --help')"


def _complain(message: str) -> int:
    if complains_first():
        print(f"medusa: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return 2


def _reader_left() -> int:
    """The reader of stdout, `head` perhaps, has seen enough: end quietly, as a signal would have it."""
    # Python flushes stdout once more when it exits; that must not fail as well.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13
