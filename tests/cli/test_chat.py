from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from medusa_decoding.cli.chat import stops_on_interrupt
from medusa_decoding.generation import Piece, load
from tests.cli.conftest import Command

FLAGS = ("--dtype", "float64", "--max-tokens", "8")


def answers(model: Path, *lines: str) -> list[str]:
    """What a conversation of the Python API answers, each as a terminal shows it."""
    conversation = load(str(model), dtype="float64").conversation()
    texts = ["".join(piece.text for piece in conversation.stream(line, max_tokens=8)) for line in lines]
    return [text if text.endswith("\n") or not text else f"{text}\n" for text in texts]


def test_each_piped_line_is_answered_with_what_was_said_before_in_mind(medusa: Command, model: Path) -> None:
    ended = medusa("chat", model, *FLAGS, stdin="Hi\n\nGo on\n")
    assert ended.status == 0
    assert ended.output == "".join(answers(model, "Hi", "Go on"))
    assert ended.error == ""


def test_reset_forgets(medusa: Command, model: Path) -> None:
    ended = medusa("chat", model, *FLAGS, stdin="Hi\n/reset\nGo on\n")
    assert ended.output == "".join([*answers(model, "Hi"), *answers(model, "Go on")])


def test_exit_ends_the_chat(medusa: Command, model: Path) -> None:
    ended = medusa("chat", model, *FLAGS, stdin="/exit\nHi\n")
    assert (ended.status, ended.output) == (0, "")


def test_stats_are_those_of_the_last_answer(medusa: Command, model: Path) -> None:
    ended = medusa("chat", model, *FLAGS, stdin="/stats\nHi\n/stats\n")
    nothing, figures = ended.error.splitlines()
    assert "no answer yet" in nothing
    assert "tokens per step" in figures


def test_later_turns_reuse_the_cache(medusa: Command, model: Path) -> None:
    assert "more kept" in medusa("chat", model, *FLAGS, stdin="Hi\nGo on\n/stats\n").error


def test_help_and_unknown_commands_list_the_commands(medusa: Command, model: Path) -> None:
    shown, unknown = medusa("chat", model, *FLAGS, stdin="/help\n/jump\n").error.splitlines()
    assert "/reset" in shown
    assert "no command /jump" in unknown and "/reset" in unknown


def test_colours_are_for_terminals_only(medusa: Command, model: Path, heads: Path) -> None:
    ended = medusa("chat", model, "--heads", heads, "--show-drafts", *FLAGS, stdin="Hi\n")
    assert "\x1b" not in ended.output + ended.error
    assert ended.output == answers(model, "Hi")[0]


def test_a_conversation_that_outgrows_the_context_ends_in_one_line(medusa: Command, model: Path) -> None:
    ended = medusa("chat", model, *FLAGS, stdin=f"Hi\n{'x' * 300}\n")
    assert ended.status == 2
    assert ended.error.startswith("medusa: error: ")
    assert "256" in ended.error


def test_interrupting_stops_the_answer_between_two_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    def pieces() -> Iterator[Piece]:
        yield Piece("a", [1], [0])
        os.kill(os.getpid(), signal.SIGINT)
        yield Piece("b", [2], [0])
        yield Piece("c", [3], [0])

    before = signal.getsignal(signal.SIGINT)
    with stops_on_interrupt(pieces()) as stopped:
        text = "".join(piece.text for piece in stopped)
    assert text == "ab"
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupting_twice_ends_the_program() -> None:
    def pieces() -> Iterator[Piece]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        yield Piece("a", [1], [0])

    with pytest.raises(KeyboardInterrupt), stops_on_interrupt(pieces()) as stopped:
        list(stopped)
