from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import pytest

from medusa_decoding.cli import terminal
from medusa_decoding.cli.terminal import (
    coloured,
    figures,
    is_coloured,
    legend,
    show_warnings_in_one_line,
    write_pieces,
)
from medusa_decoding.decoding import LOOKUP, Statistics
from medusa_decoding.generation import Generation, Piece, load


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make stdout and stderr a terminal that shows colours."""
    made = Screen()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return made


PIECES = [Piece("The", [1], [0]), Piece(" cat", [2], [1]), Piece("", [3], [2]), Piece(" sat", [4], [2])]


def test_text_is_written_as_it_comes_and_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_pieces(iter(PIECES), show_drafts=True)
    write_pieces(iter([Piece("done\n", [5], [0]), Piece("", [6], [0])]))
    write_pieces(iter([]))
    assert capsys.readouterr().out == "The cat sat\ndone\n"


def test_each_guess_has_the_colour_of_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_screen = screen(monkeypatch)
    write_pieces(iter(PIECES), show_drafts=True)
    assert terminal_screen.getvalue() == "The\x1b[32m cat\x1b[0m\x1b[36m sat\x1b[0m\n"


def test_the_legend_names_who_guesses(monkeypatch: pytest.MonkeyPatch, model: Path, heads: Path) -> None:
    screen(monkeypatch)
    shown = {draft: legend(load(str(model), heads=heads, draft=draft, tree=4)) for draft in ("both", "heads")}
    assert "\x1b[32mhead 1\x1b[0m, \x1b[36mhead 2\x1b[0m, \x1b[7mprompt lookup\x1b[0m;" in shown["both"]
    assert "\x1b[36mhead 2\x1b[0m;" in shown["heads"]
    alone = legend(load(str(model), draft="lookup", tree=4))
    assert alone.startswith("guessed by: \x1b[7mprompt lookup\x1b[0m;")


def test_what_lookup_guessed_is_shown_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_screen = screen(monkeypatch)
    write_pieces(iter([Piece("a", [1], [0]), Piece("b", [2], [LOOKUP])]), show_drafts=True)
    assert terminal_screen.getvalue() == "a\x1b[7mb\x1b[0m\n"


def test_a_terminal_does_not_obey_what_a_model_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_screen = screen(monkeypatch)
    write_pieces(iter([Piece("a\x1b[2J\tb\n", [1], [0])]))
    assert terminal_screen.getvalue() == "a\ufffd[2J\tb\n"


def test_a_file_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    write_pieces(iter([Piece("a\x1b[2J\n", [1], [0])]))
    assert capsys.readouterr().out == "a\x1b[2J\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_may_be_turned_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    terminal_screen = screen(monkeypatch)
    assert is_coloured(terminal_screen)
    monkeypatch.setenv(name, value)
    assert not is_coloured(terminal_screen)
    assert coloured("x", "1", terminal_screen) == "x"


def test_the_figures_are_those_of_the_statistics() -> None:
    statistics = Statistics(
        prompt_tokens=7, cached_tokens=3, prefill_seconds=0.5, tokens=9, steps=5, decode_seconds=2.0
    )
    generation = Generation("text", list(range(10)), "length", statistics, [0] * 10)
    assert figures(generation) == (
        "10 tokens, 4.5 tokens/s, 1.80 tokens per step, 5 steps, prompt 7 tokens in 0.50 s (3 more kept)"
    )
    assert figures(generation, lossless=False).endswith("not lossless")


def test_only_this_packages_warnings_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    show_warnings_in_one_line()
    inside = str(Path(terminal.__file__).with_name("made_up.py"))
    warnings.showwarning(UserWarning("mind\nthis"), UserWarning, inside, 1)
    warnings.showwarning(DeprecationWarning("old"), DeprecationWarning, inside, 1)
    warnings.showwarning(UserWarning("elsewhere"), UserWarning, "/lib/other.py", 1)
    assert capsys.readouterr().err == "medusa: warning: mind this\n"
