from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.bench import server as bench
from medusa_decoding.bench.server_config import ServerBenchConfig
from medusa_decoding.bench.server_report import build_report, percentile, table
from medusa_decoding.bench.streaming import Answer, RequestFailed, StreamingClient
from medusa_decoding.bench.suite import Question
from medusa_decoding.distill.endpoint import KEY_VARIABLE
from medusa_decoding.errors import UserError
from tests.serving.stand_in import StreamingStandIn, Token, medusa_reply, one_by_one, plain_reply, serving

QUESTIONS = [
    Question(question_id=1, category="qa", turns=("Hi", "Why")),
    Question(question_id=2, category="qa", turns=("Yes",)),
    Question(question_id=2, category="code", turns=("x = 1",)),
]
STEPS: list[list[Token]] = [[("a", 0)], [(" b", 1), (" c", 2), (" d", 0)], [(" e", 0)]]


def with_medusa(body: dict[str, Any]) -> Any:
    return medusa_reply(one_by_one(STEPS) if body["speculative"] == "off" else STEPS)


def without(_: dict[str, Any]) -> Any:
    return plain_reply(["a", " b", " c"])


def measured(config: ServerBenchConfig, server: StreamingStandIn) -> dict[str, Any]:
    variants = bench.variants_at(config, "tiny", QUESTIONS[0])
    server.requests.clear()
    runs = bench.bench_server(config, "tiny", variants, QUESTIONS)
    report = build_report(config, "tiny", Path("some/suite.jsonl"), QUESTIONS, runs)
    table(report)
    return report


def test_plain_and_medusa_are_measured_at_each_level() -> None:
    with serving(with_medusa) as server:
        config = ServerBenchConfig.of(server=server.url, concurrency="1,2", max_tokens=9, seed=4)
        report = measured(config, server)
        assert [one["concurrency"] for one in report["runs"]] == [1, 2]
        for level in report["runs"]:
            plain, medusa = level["variants"]["plain"], level["variants"]["medusa"]
            assert plain["requests"] == medusa["requests"] == 4
            assert plain["tokens"] == medusa["tokens"] == 20
            assert (plain["acceleration_rate"], medusa["acceleration_rate"]) == (1.0, 2.0)
            assert plain["prompt_tokens"] == 20
            assert level["identical"] == {"texts": 4, "of": 4}
            assert level["ratio"] == pytest.approx(
                medusa["tokens_per_second"] / plain["tokens_per_second"], rel=1e-3
            )
        # The order of the variants turns round from level to level.
        told = [body["speculative"] for body in server.requests]
        assert told == ["off"] * 4 + ["auto"] * 8 + ["off"] * 4
        asked = {key: server.requests[0][key] for key in ("model", "max_tokens", "temperature", "seed")}
        assert asked == {"model": "tiny", "max_tokens": 9, "temperature": 0.0, "seed": 4}
        assert report["suite"] == {
            "file": "suite.jsonl",
            "questions": 3,
            "turns": 4,
            "categories": ["qa", "code"],
        }
        assert report["failures"] == []


def test_later_turns_follow_the_servers_own_answers() -> None:
    with serving(with_medusa) as server:
        measured(ServerBenchConfig.of(server=server.url, concurrency="1"), server)
        assert server.requests[1]["messages"] == [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "a b c d e"},
            {"role": "user", "content": "Why"},
        ]


def test_a_server_that_knows_no_speculation_is_measured_as_it_is() -> None:
    def strict(body: dict[str, Any]) -> Any:
        return 400 if "speculative" in body else without(body)

    for reply in (without, strict):
        with serving(reply) as server:
            report = measured(ServerBenchConfig.of(server=server.url, concurrency="2"), server)
            (level,) = report["runs"]
            assert list(level["variants"]) == ["as served"]
            assert level["variants"]["as served"]["acceleration_rate"] is None
            assert level["variants"]["as served"]["tokens"] == 12
            assert "ratio" not in level
            assert all("speculative" not in body for body in server.requests)


def test_as_many_conversations_run_at_a_time_as_were_asked_for() -> None:
    both = threading.Barrier(2, timeout=20)

    def reply(body: dict[str, Any]) -> Any:
        if body["max_tokens"] != bench.WARM_UP_TOKENS and body["messages"][-1]["content"] in ("Hi", "Yes"):
            both.wait()
        return without(body)

    with serving(reply) as server:
        measured(ServerBenchConfig.of(server=server.url, concurrency="2"), server)
        assert server.most == 2


def test_an_open_loop_does_not_wait_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    all_three = threading.Barrier(3, timeout=20)
    gaps = list[float]()
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds != 0.1:  # the stand-in's server keeps time by that
            gaps.append(seconds)
        await sleep(0)

    def reply(body: dict[str, Any]) -> Any:
        if body["max_tokens"] != bench.WARM_UP_TOKENS and body["messages"][-1]["content"] != "Why":
            all_three.wait()
        return without(body)

    monkeypatch.setattr("medusa_decoding.bench.server.asyncio.sleep", noted)
    with serving(reply) as server:
        report = measured(ServerBenchConfig.of(server=server.url, rate=50), server)
        assert (report["runs"][0]["concurrency"], report["runs"][0]["rate"]) == (None, 50.0)
        assert report["runs"][0]["variants"]["as served"]["requests"] == 4
    assert len(set(gaps)) == 3  # of a Poisson process: none like the other
    assert 0 < sum(gaps) < 1


def test_what_fails_is_counted_and_told() -> None:
    def reply(body: dict[str, Any]) -> Any:
        said = body["messages"][-1]["content"]
        if body["max_tokens"] == bench.WARM_UP_TOKENS or said not in ("Hi", "Yes"):
            return without(body)
        return 429 if said == "Hi" else without(body)[:2]

    with serving(reply) as server:
        report = measured(ServerBenchConfig.of(server=server.url, concurrency="1"), server)
        found = report["runs"][0]["variants"]["as served"]
        assert (found["requests"], found["failed"], found["tokens"]) == (1, 2, 3)
        refused, cut = report["failures"]
        assert refused["question_id"] == 1 and refused["reason"].startswith("429")
        assert cut["question_id"] == 2 and cut["reason"] == "the connection ended before the answer did"


def test_a_server_that_answers_nothing_ends_the_benchmark() -> None:
    def reply(body: dict[str, Any]) -> Any:
        return without(body) if body["max_tokens"] == bench.WARM_UP_TOKENS else 503

    with serving(reply) as server, pytest.raises(UserError, match=r"none of 3 requests \(503"):
        measured(ServerBenchConfig.of(server=server.url, concurrency="1"), server)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (404, "check the address"),
        ([{"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}], "does not count tokens"),
        ([{"error": {"message": "out of memory"}}], "out of memory"),
        ([{"choices": "none"}], "no known form"),
    ],
)
def test_a_server_that_cannot_be_measured_is_told_before(reply: Any, message: str) -> None:
    with serving(lambda _: reply) as server, pytest.raises(UserError, match=message):
        bench.variants_at(ServerBenchConfig.of(server=server.url), "tiny", QUESTIONS[0])


def test_where_nothing_listens() -> None:
    with serving(without) as server:
        config = ServerBenchConfig.of(server=server.url)
    with pytest.raises(UserError, match="check the address"):
        bench.variants_at(config, "tiny", QUESTIONS[0])
    with pytest.raises(UserError, match="or give MODEL"):
        bench.model_at(config)


def test_the_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving(without, key="secret") as server:
        config = ServerBenchConfig.of(server=server.url)
        with pytest.raises(UserError, match=f"environment variable {KEY_VARIABLE}"):
            bench.variants_at(config, "tiny", QUESTIONS[0])
        monkeypatch.setenv(KEY_VARIABLE, "secret")
        assert bench.variants_at(config, "tiny", QUESTIONS[0]) == {"as served": None}
        assert bench.model_at(config) == "tiny"
        server.models = ["one", "two"]
        with pytest.raises(UserError, match="has the models one, two; name one"):
            bench.model_at(config)


def test_times_are_those_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 11.5, 12.5, 13.0, 14.0, 15.0])
    monkeypatch.setattr("medusa_decoding.bench.streaming.perf_counter", lambda: next(clock))

    async def ask(url: str) -> Answer:
        client = StreamingClient(ServerBenchConfig.of(server=url), "tiny")
        try:
            return await client.ask([{"role": "user", "content": "Hi"}], None)
        finally:
            await client.close()

    with serving(lambda _: plain_reply(["a", " b", " c"])) as server:
        answer = asyncio.run(ask(server.url))
    assert (answer.sent, answer.first, answer.last) == (10.0, 11.0, 12.5)
    assert answer.time_to_first_token == 1.0
    assert answer.time_per_output_token == 0.75
    assert answer.text == "a b c"


def test_a_server_that_falls_silent_is_given_up() -> None:
    never = threading.Event()

    async def ask(url: str) -> None:
        client = StreamingClient(ServerBenchConfig.of(server=url, request_timeout=0.05), "tiny")
        try:
            await client.ask([{"role": "user", "content": "Hi"}], None)
        finally:
            await client.close()

    def reply(_: dict[str, Any]) -> Any:
        never.wait(20)
        return 503

    with serving(reply) as server:
        with pytest.raises(RequestFailed, match="Timeout"):
            asyncio.run(ask(server.url))
        never.set()


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (1, 50, 95, 100)] == [1.0, 50.0, 95.0, 100.0]
    assert percentile([7.0], 95) == 7.0
    assert percentile([], 50) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"server": "localhost:8000"}, "'server' cannot be"),
        ({"concurrency": "1,0"}, "at least 1"),
        ({"concurrency": "two"}, "'concurrency"),
        ({"rate": 0}, "'rate' cannot be 0"),
        ({"rate": 2, "concurrency": "1"}, "give one"),
        ({"ratee": 2}, "unknown key 'ratee'"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ServerBenchConfig.of(**{"server": "http://localhost:8000", **fields})


def test_the_address_may_lack_its_path() -> None:
    urls = ["http://a:1", "http://a:1/", "https://a/v1/", "https://a/llm/v1"]
    found = [ServerBenchConfig.of(server=url).url for url in urls]
    assert found == ["http://a:1/v1", "http://a:1/v1", "https://a/v1", "https://a/llm/v1"]
