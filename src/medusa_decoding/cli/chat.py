"""`medusa chat`: a conversation in the terminal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.fields import spread
from medusa_decoding.cli.loading import is_lossless, load_medusa
from medusa_decoding.cli.terminal import coloured, figures, is_coloured, legend, note, write_pieces
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from types import FrameType

    from medusa_decoding.generation import Conversation, GenerationOptions, Medusa, Piece
    from medusa_decoding.generation.medusa import Stream

_HELP = (
    "/reset forget what was said   /stats figures of the last answer   /exit leave   Ctrl-C stops an answer"
)
_PROMPT_COLOUR = "1;34"


@spread
def chat(
    *,
    model: take.Model,
    system: take.System = None,
    show_drafts: Annotated[
        bool, typer.Option("--show-drafts", help="Colour each token by who guessed it: a head, or lookup.")
    ] = False,
    max_tokens: take.MaxTokens = 1024,
    sampling: take.Sampling,
    no_heads: take.NoHeads = False,
    loading: take.Loading,
) -> None:
    """Talk with a model.

    What was said stays in the model's cache. Lines may also be piped in, one message each.
    """
    from medusa_decoding.generation.options import GenerationOptions

    chosen = GenerationOptions.of(None, {**sampling.fields(), "max_tokens": max_tokens})
    medusa = load_medusa(model, loading, no_heads=no_heads)
    if not medusa.tokenizer.has_chat_template:
        raise UserError(f"{model} has no chat template: use 'medusa generate' to continue a text")
    talk = Chat(medusa, medusa.conversation(system), chosen, show_drafts and is_coloured(sys.stdout))
    talk.run()


class Chat:
    """One conversation: reads lines, answers them, obeys commands that begin with a slash."""

    def __init__(
        self, medusa: Medusa, conversation: Conversation, options: GenerationOptions, show_drafts: bool
    ) -> None:
        self.medusa = medusa
        self.conversation = conversation
        self.options = options
        self.show_drafts = show_drafts
        self.interactive = sys.stdin.isatty()
        self._last: Stream | None = None

    def run(self) -> None:
        """Until /exit or the end of the input."""
        if self.interactive:
            note(f"{self.medusa.name}, {self.medusa.drafting}. {_HELP}")
        if self.show_drafts and self.medusa.drafts:
            print(legend(self.medusa), file=sys.stderr)
        for line in self._lines():
            if line.startswith("/"):
                if not self._obey(line):
                    return
            elif line:
                self._answer(line)

    def _obey(self, command: str) -> bool:
        """Do what a command says; false ends the chat."""
        if command in ("/exit", "/quit"):
            return False
        if command == "/reset":
            self.conversation.clear()
            note("forgotten")
        elif command == "/stats":
            self._show_figures()
        else:
            note(_HELP if command == "/help" else f"there is no command {command}. {_HELP}")
        return True

    def _answer(self, text: str) -> None:
        try:
            stream = self.conversation.stream(text, self.options)
        except UserError as error:
            # The conversation has outgrown the context: a way on is better than an end.
            if not self.interactive:
                raise
            note(f"{error} (/reset begins anew)")
            return
        self._last = stream
        with stops_on_interrupt(stream) as pieces:
            write_pieces(pieces, show_drafts=self.show_drafts)
        if self.interactive:
            self._show_figures()

    def _show_figures(self) -> None:
        if self._last is None:
            note("there is no answer yet")
        else:
            note(figures(self._last.result, lossless=is_lossless(self.medusa)))

    def _lines(self) -> Iterator[str]:
        if not self.interactive:
            yield from (line.strip() for line in sys.stdin)
            return
        import readline  # noqa: F401 - gives input() its line editing and history

        while True:
            try:
                yield input(_prompt()).strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                note("\nCtrl-D or /exit leaves")


def _prompt() -> str:
    """The prompt; readline must be told (by \\x01 and \\x02) which characters take no room."""
    if not is_coloured(sys.stdout):
        return "> "
    return f"\x01\x1b[{_PROMPT_COLOUR}m\x02>\x01\x1b[0m\x02 "


@contextmanager
def stops_on_interrupt(stream: Iterator[Piece]) -> Iterator[Iterator[Piece]]:
    """The stream's pieces until Ctrl-C. It takes effect between two steps, so that the cache stays whole;
    pressed again before that, it ends the program.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def pieces() -> Iterator[Piece]:
        for piece in stream:
            yield piece
            if pressed:
                return

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pieces()
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        print(coloured(" [stopped]", "2", sys.stderr), file=sys.stderr)
