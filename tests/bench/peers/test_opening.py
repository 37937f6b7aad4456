from __future__ import annotations

from collections.abc import Iterator, Sequence

from medusa_decoding.bench.peers.opening import WARM_UP_TOKENS, Opened
from medusa_decoding.bench.peers.result import SkippedPeer
from medusa_decoding.bench.peers.side import About, NoAnswer, PeerFailed, PeerMissing, Prompt, Side, Written

PROMPT = Prompt("a", [1])


class Warmed:
    """A side that fails when it is warmed up, if `fault` says so."""

    def __init__(self, name: str, fault: Exception | None = None) -> None:
        self.about, self.fault = About(name, name, "", "", ""), fault
        self.asked: list[int] = []
        self.closed = False

    def write(self, prompt: Prompt, tokens: int) -> Written:
        self.asked.append(tokens)
        if self.fault is not None:
            raise self.fault
        return Written(tokens - 1, 1.0, 1.0)

    def log_likelihood(self, tokens: Sequence[int]) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_each_side_is_warmed_up_and_closed_in_the_end() -> None:
    opened, sides = Opened(), [Warmed("a"), Warmed("b")]
    opened.open("both", sides, PROMPT)
    assert [side.asked for side in sides] == [[WARM_UP_TOKENS]] * 2
    assert not any(side.closed for side in sides)
    opened.close()
    assert all(side.closed for side in sides) and opened.skipped == []


def test_what_fails_is_skipped_and_the_others_stay() -> None:
    opened = Opened()
    failing = [Warmed("b", PeerFailed("it crashed")), Warmed("c", NoAnswer("nothing"))]
    opened.open("a", [Warmed("a")], PROMPT)
    opened.open("b", failing[:1], PROMPT)
    opened.open("c", failing[1:], PROMPT)
    assert all(side.closed for side in failing)
    assert [side.about.name for side in opened.sides] == ["a"]
    assert [(one.peer, one.reason) for one in opened.skipped] == [("b", "it crashed"), ("c", "nothing")]


def test_what_is_missing_names_its_line_and_what_was_there() -> None:
    def sides() -> Iterator[Side]:
        yield Warmed("x 1")
        raise PeerMissing("not installed", "pip install x")

    opened = Opened()
    opened.open("x", sides(), PROMPT)
    assert opened.skipped == [
        SkippedPeer(peer="x (all but x 1)", reason="not installed", install="pip install x")
    ]
    assert [side.about.name for side in opened.sides] == ["x 1"]
