from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.generation.text import TextAssembler


class Spelling:
    """A token stream in which a token is a character."""

    def push(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def flush(self) -> str:
        return ""


def write(text: str, stops: Sequence[str]) -> tuple[str, list[str], bool]:
    """All text, the pieces as they became ready, and whether a stop string was met."""
    assembler, pieces = TextAssembler(Spelling(), stops), []
    for character in text:
        stopped = assembler.push(ord(character))
        pieces.append(assembler.take())
        if stopped:
            break
    pieces.append(assembler.finish())
    return assembler.text, pieces, assembler.stopped


def test_text_ends_before_the_stop_string() -> None:
    assert write("one. two", ["."]) == ("one", ["o", "n", "e", "", ""], True)


def test_a_possible_stop_string_is_held_back_until_it_is_not_one() -> None:
    text, pieces, stopped = write("a ENx END b", ["END"])
    assert (text, stopped) == ("a ENx ", True)
    assert pieces == ["a", " ", "", "", "ENx", " ", "", "", "", ""]


def test_what_was_held_back_is_given_out_at_the_end() -> None:
    text, pieces, stopped = write("abE", ["END"])
    assert (text, pieces[-1], stopped) == ("abE", "E", False)


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert write("xyz", ["z", "yz"])[0] == "x"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_pieces_are_the_text_up_to_the_first_stop_string_to_be_complete(text: str, stops: list[str]) -> None:
    expected, met = text, False
    for end in range(1, len(text) + 1):
        found = [at for stop in stops if (at := text[:end].find(stop)) >= 0]
        if found:
            expected, met = text[: min(found)], True
            break
    whole, pieces, stopped = write(text, stops)
    assert whole == "".join(pieces) == expected
    assert stopped == met


class HalfCharacters:
    """A token stream that keeps the first half of each pair, as of a character of two bytes."""

    def __init__(self) -> None:
        self.half = ""

    def push(self, ids: Sequence[int]) -> str:
        self.half += "".join(map(chr, ids))
        ready, self.half = (self.half, "") if len(self.half) == 2 else ("", self.half)
        return ready

    def flush(self) -> str:
        return "\ufffd" if self.half else ""


def test_an_unfinished_character_comes_out_at_the_end_only() -> None:
    assembler = TextAssembler(HalfCharacters(), [])
    pieces = []
    for character in "abc":
        assembler.push(ord(character))
        pieces.append(assembler.take())
    assert pieces == ["", "ab", ""]
    assert assembler.finish() == "\ufffd"
    assert assembler.text == "ab\ufffd"
