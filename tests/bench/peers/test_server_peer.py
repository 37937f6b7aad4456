from __future__ import annotations

import threading

import pytest

from medusa_decoding.bench.peers.server_peer import ServerSide
from medusa_decoding.bench.peers.side import NoAnswer, PeerFailed, PeerMissing, Prompt
from tests.serving.stand_in import plain_reply, serving

PROMPT = Prompt("Why?", [1, 2, 3])


def test_it_is_asked_for_a_greedy_answer() -> None:
    with serving(lambda _: plain_reply(["a", " b", " c"])) as server:
        side = ServerSide(f"server:{server.url}", 30.0)
        written = side.write(PROMPT, 7)
        [asked] = server.requests
        side.close()
        side.close()
    assert (asked["max_tokens"], asked["temperature"]) == (7, 0.0)
    assert asked["messages"] == [{"role": "user", "content": "Why?"}]
    assert (written.count, written.tokens) == (2, None)
    assert written.seconds > 0 < written.prefill_seconds
    assert side.log_likelihood([1, 2]) is None


def test_a_model_may_be_named() -> None:
    with serving(lambda _: plain_reply(["a", " b"])) as server:
        side = ServerSide(f"server:{server.url}#other", 30.0)
        side.write(PROMPT, 2)
        side.close()
        assert server.requests[0]["model"] == "other"
        assert side.about.description.startswith("other at ")


def test_an_answer_in_one_piece_and_a_refusal() -> None:
    replies = [plain_reply(["all"]), 500]
    with serving(lambda _: replies.pop(0)) as server:  # type: ignore[arg-type, return-value]
        side = ServerSide(f"server:{server.url}", 30.0)
        with pytest.raises(NoAnswer):
            side.write(PROMPT, 4)
        with pytest.raises(PeerFailed, match="500"):
            side.write(PROMPT, 4)
        side.close()


def test_silence_has_an_end() -> None:
    never = threading.Event()
    with serving(lambda _: [never]) as server:
        side = ServerSide(f"server:{server.url}", 30.0)
        side._patience = 0.2
        with pytest.raises(PeerFailed, match=r"did not answer within 0\.2 seconds"):
            side.write(PROMPT, 4)
        side.close()
        never.set()


def test_nobody_answers() -> None:
    with pytest.raises(PeerMissing, match="cannot ask"):
        ServerSide("server:http://127.0.0.1:9", 1.0)
