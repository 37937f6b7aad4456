"""What is written where: text to stdout; figures, warnings and whatever moves to stderr."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from medusa_decoding.decoding import Statistics
    from medusa_decoding.generation import Generation, Medusa, Piece

_PACKAGE = str(Path(__file__).parents[1])
_RESET = "\x1b[0m"
_DIM = "2"
HEAD_COLOURS = ("32", "36", "33", "35", "34", "31")
"""Colours of the tokens that head 1, 2, ... guessed, as SGR codes; the base model's own tokens stay as they
are.
"""
LOOKUP_COLOUR = "7"
"""Tokens that prompt lookup guessed are shown in reverse."""


def quiet_libraries() -> None:
    """Keep other libraries' reports and progress bars off the terminal; set before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def prepare_streams() -> None:
    """Read and write UTF-8 in any locale; where stdout or stderr is closed, write to nowhere."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - open as long as the program runs
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="strict" if stream is sys.stdin else "replace")


def show_warnings_in_one_line() -> None:
    """Show this package's warnings as `medusa: warning: ...` and nobody else's."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
    ) -> None:
        if issubclass(category, UserWarning) and filename.startswith(_PACKAGE):
            print(f"medusa: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show


def is_coloured(stream: TextIO) -> bool:
    """Whether to write colours to `stream`: a terminal that is not told otherwise (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, code: str, stream: TextIO) -> str:
    """`text` in the colour of an SGR code, if `stream` shows colours."""
    return f"\x1b[{code}m{text}{_RESET}" if text and code and is_coloured(stream) else text


def note(text: str) -> None:
    """One line to stderr, dimmed on a terminal."""
    print(coloured(text, _DIM, sys.stderr), file=sys.stderr)


def write(text: str) -> None:
    """Text to stdout, at once. On a terminal, control characters that a model may write are not obeyed."""
    if sys.stdout.isatty():
        text = "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)
    sys.stdout.write(text)
    sys.stdout.flush()


def write_pieces(pieces: Iterator[Piece], *, show_drafts: bool = False) -> None:
    """Write a stream as it comes; `show_drafts`: each piece in the colour of what guessed it."""
    ends_line = True
    for piece in pieces:
        source = piece.sources[0] if piece.sources else 0
        colour = source_colour(source) if show_drafts else ""
        begins = f"\x1b[{colour}m" if piece.text and colour and is_coloured(sys.stdout) else ""
        sys.stdout.write(begins)
        write(piece.text)
        sys.stdout.write(_RESET if begins else "")
        ends_line = piece.text.endswith("\n") if piece.text else ends_line
    if not ends_line:
        write("\n")


def source_colour(source: int) -> str:
    """The colour of a token's source (`Piece.sources`) as an SGR code; none for the base model."""
    if source < 0:
        return LOOKUP_COLOUR
    return HEAD_COLOURS[(source - 1) % len(HEAD_COLOURS)] if source else ""


def legend(medusa: Medusa) -> str:
    """One line that tells the colours of `write_pieces`."""
    count = 0 if medusa.heads is None else medusa.heads.config.num_heads
    names = [coloured(f"head {head}", source_colour(head), sys.stderr) for head in range(1, count + 1)]
    if medusa.lookup is not None:
        names.append(coloured("prompt lookup", LOOKUP_COLOUR, sys.stderr))
    return f"guessed by: {', '.join(names)}; uncoloured: the base model itself"


def figures(generation: Generation, *, lossless: bool = True) -> str:
    """One line of statistics."""
    statistics = generation.statistics
    prompt = f"prompt {statistics.prompt_tokens} tokens in {statistics.prefill_seconds:.2f} s"
    kept = f" ({statistics.cached_tokens} more kept)" if statistics.cached_tokens else ""
    written = f"{len(generation.tokens)} tokens, {rates(statistics)}, {prompt}{kept}"
    return written if lossless else f"{written}; typical acceptance: not lossless"


def rates(statistics: Statistics) -> str:
    """Speed and acceleration of the decoding steps."""
    found = statistics.looked_up_accepted
    looked_up = f", {found} tokens looked up" if found else ""
    return (
        f"{statistics.tokens_per_second:.1f} tokens/s, {statistics.acceleration_rate:.2f} tokens per step, "
        f"{statistics.steps} steps{looked_up}"
    )


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Show on a terminal that something takes its time."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
