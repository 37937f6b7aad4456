"""Clients that leave, and what metrics say meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from medusa_decoding.decoding import Statistics
from medusa_decoding.serving.jobs import Emitted, Event, Finished, Verified
from medusa_decoding.serving.streaming import merged
from medusa_decoding.serving.writing import CompletionWriter
from tests.serving.conftest import Server

BODY = {"messages": [{"role": "user", "content": "Hello"}]}


def figures(http: httpx.Client) -> dict[str, float]:
    """Each sample of /metrics by its name, and its label's value if it has one."""
    return {
        ":".join([sample.name.removeprefix("medusa:"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
    }


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds within five seconds."""
    until = time.monotonic() + 5
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


def test_a_stream_is_server_sent_events(http: httpx.Client) -> None:
    with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
        lines = list(answer.iter_lines())
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert all(line.startswith("data: {") for line in lines[:-2:2]) and set(lines[1::2]) == {""}
    assert lines[-2] == "data: [DONE]"


def test_who_leaves_a_stream_frees_its_sequence(http: httpx.Client, server: Server) -> None:
    server.jobs.seconds_per_token = 0.1
    with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True, "n": 2}) as answer:
        lines = answer.iter_lines()  # kept: its end would be the stream's
        next(lines)
        assert figures(http)["num_requests_running"] == 2
    assert eventually(lambda: all(ticket.cancelled for ticket in server.jobs.tickets))
    assert not any(ticket.ended and len(server.jobs.reply_ids) == 0 for ticket in server.jobs.tickets)
    now = figures(http)
    assert now["num_requests_running"] == now["num_requests_waiting"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_before_the_first_token_frees_its_sequence(server: Server, stream: bool) -> None:
    server.jobs.seconds_per_token = 30
    with server.http() as http, pytest.raises(httpx.ReadTimeout):
        answer = http.post("/v1/chat/completions", json={**BODY, "stream": stream}, timeout=0.3)
        answer.read()
    assert eventually(lambda: [ticket.cancelled for ticket in server.jobs.tickets] == [True])


def test_metrics_count(http: httpx.Client, server: Server) -> None:
    before = figures(http)
    http.post("/v1/chat/completions", json={**BODY, "max_tokens": 5})
    after = figures(http)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["prompt_tokens_total"] == len(server.jobs.submitted[0].prompt)
    assert grown["generation_tokens_total"] == 5
    assert grown["spec_decode_num_drafts_total"] == grown["spec_decode_num_draft_tokens_total"] == 4
    assert grown["spec_decode_num_accepted_tokens_total"] == 2
    assert grown["spec_decode_num_accepted_tokens_per_pos_total:0"] == 2
    assert grown["time_to_first_token_seconds_count"] == 1
    assert grown["time_per_output_token_seconds_count"] == 4
    assert grown["tree_size_count"] == 4 and grown["tree_size_sum"] == 8
    assert grown["request_success_total:length"] == 1
    assert after["num_requests_running"] == after["num_requests_waiting"] == 0


class Ready:
    """A ticket whose events are all there."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[Event]:
        for event in self._events:
            yield event

    def cancel(self) -> None:
        """Nothing to stop."""


def test_what_comes_together_is_told_together() -> None:
    texts = [[Emitted(place, letter, 0) for letter in "abc"] for place in range(2)]

    async def found() -> list[tuple[int, list[Event]]]:
        return [one async for one in merged([Ready(events) for events in texts])]

    assert asyncio.run(found()) == [(0, texts[0]), (1, texts[1])]


def test_tokens_of_a_step_are_one_chunk(server: Server) -> None:
    writer = CompletionWriter(server.served, 0, trace=True)
    step = Verified((1, 2), (-1, 0), (1.0, 0.5), (0, 1), (0, 1))
    tokens = [Emitted(1, "a", 1), Emitted(2, "b", 0)]
    tree, text, *_ = writer.push([step, *tokens, Finished("stop", Statistics(), "c")])
    assert tree["medusa"]["tree"]["path"] == [0, 1]
    assert text["choices"][0]["text"] == "ab"
    assert [one["source"] for one in text["medusa"]["tokens"]] == [1, 0]
    assert writer.text == "abc"
