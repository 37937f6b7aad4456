from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from medusa_decoding.distill import DistillConfig, distill, endpoint, remote
from medusa_decoding.distill.endpoint import wait_for
from medusa_decoding.errors import UserError
from medusa_decoding.models import load_tokenizer, resolve
from tests.distill.stand_in import StandIn, serving
from tests.tiny import tiny_llama

PROMPTS = [f"say number {number}" for number in range(20)]
END = 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(endpoint, "FIRST_DELAY", 0.001)
    monkeypatch.delenv(endpoint.KEY_VARIABLE, raising=False)
    with serving() as stand_in:
        yield stand_in


@pytest.fixture
def make_config(model: Path, server: StandIn, tmp_path: Path) -> Any:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{text}\n" for text in PROMPTS), encoding="utf-8")

    def make(**fields: Any) -> DistillConfig:
        defaults = {
            "model": str(model), "prompts": prompts, "out": tmp_path / "answers.jsonl",
            "endpoint": server.url, "concurrency": 4, "request_timeout": 0.5, "max_tokens": 30,
        }  # fmt: skip
        return DistillConfig.of(**{**defaults, **fields})

    return make


def records_of(config: DistillConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in config.out.read_text(encoding="utf-8").splitlines()]


def dropped_of(config: DistillConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in config.dropped_path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_the_servers_in_order_of_the_prompts(make_config: Any, server: StandIn) -> None:
    config = make_config(temperature=0.5, top_p=0.9)
    # The first answer comes last.
    server.delays = {**dict.fromkeys(PROMPTS, 0.01), PROMPTS[0]: 0.2}
    report = distill(config, progress=False)
    tokenizer = load_tokenizer(resolve(config.model))
    records = records_of(config)
    assert [record["prompt"] for record in records] == PROMPTS
    for record, text in zip(records, PROMPTS, strict=True):
        assert record["answer"] == text[::-1]
        assert record["prompt_ids"] == tokenizer.chat([{"role": "user", "content": text}])
        assert record["answer_ids"] == [*tokenizer.encode(text[::-1]), END]
    assert report.answers == len(PROMPTS) and 1 < server.most <= 4
    body = server.requests[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("tiny", 30, 0.5, 0.9)
    assert len({one["seed"] for one in server.requests}) == len(PROMPTS)
    note = json.loads(config.record_path.read_text(encoding="utf-8"))
    assert note["engines"] == [f"endpoint {server.url}"] and note["fingerprint"] == "endpoint model tiny"
    assert not config.cache_folder.exists()


def test_faults_that_pass_are_waited_out(make_config: Any, server: StandIn) -> None:
    faults: list[list[int | str]] = [
        [429, 500, 503],
        ["hang"],
        ["close", "garbage", "reset", "cut"],
        [502] * 7,
    ]
    server.faults = dict(zip(PROMPTS[1:5], faults, strict=True))
    config = make_config()
    distill(config, progress=False)
    assert [record["answer"] for record in records_of(config)] == [text[::-1] for text in PROMPTS]
    assert len(server.requests) == len(PROMPTS) + 3 + 1 + 4 + 7


def test_faults_that_stay_end_the_run_which_goes_on_later(make_config: Any, server: StandIn) -> None:
    server.faults = {PROMPTS[9]: [500] * endpoint.ATTEMPTS}
    config = make_config()
    with pytest.raises(UserError, match=r"failed 8 times, the last time with: 500 .*no say number 9"):
        distill(config, progress=False)
    assert [record["prompt"] for record in records_of(config)] == PROMPTS[:9]
    # What was there beyond the gap when the run ended is kept, too, and not asked for again.
    kept = [json.loads(line)["prompt"] for line in config.waiting_path.read_text().splitlines()]
    assert len(kept) == len(set(kept)) > 0
    server.requests.clear()
    report = distill(config, progress=False)
    assert (report.before, report.answers) == (9, len(PROMPTS) - 9)
    assert sorted(server.said()) == sorted(set(PROMPTS[9:]) - set(kept))
    assert [record["prompt"] for record in records_of(config)] == PROMPTS
    assert not config.waiting_path.exists()


CONVERSATIONS = [
    [f"{name}{turn}" for turn in range(1 + number % 3)] for number, name in enumerate("abcdefghij")
]


def test_killed_run_writes_the_file_of_an_uninterrupted_one(
    make_config: Any, server: StandIn, tmp_path: Path
) -> None:
    """Conversations of one to three turns; the second, which is slow, holds the others up when it ends."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(json.dumps({"turns": turns}) + "\n" for turns in CONVERSATIONS))
    whole = make_config(prompts=prompts, out=tmp_path / "whole.jsonl", concurrency=1)
    distill(whole, progress=False)
    asked = [one.get("prompt") or one["messages"][-1]["content"] for one in records_of(whole)]
    assert asked == [turn for turns in CONVERSATIONS for turn in turns]
    config = make_config(prompts=prompts, request_timeout=20)
    server.delays = {"b1": 5.0}
    script = f"""
from medusa_decoding.distill import DistillConfig, distill, remote
remote._KEEP_SECONDS = 0.0
distill(DistillConfig.model_validate_json({config.model_dump_json()!r}), progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    waiting = sum(map(len, CONVERSATIONS)) - 3
    while not config.waiting_path.is_file() or config.waiting_path.read_bytes().count(b"\n") < waiting:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [record["id"] for record in records_of(config)] == [1, 2]
    # The kill fell into a line.
    with config.waiting_path.open("a") as file:
        file.write('{"id": "to')
    server.delays, server.requests = {}, []
    report = distill(config, progress=False)
    assert report.before == 2 and server.said() == ["b1"]
    assert config.out.read_bytes() == whole.out.read_bytes()
    assert not config.waiting_path.exists()


def test_waiting_answers_to_other_prompts_are_not_taken(make_config: Any, server: StandIn) -> None:
    config = make_config(limit=2)
    strange = {"id": 1, "prompt_ids": [5], "answer_ids": [6], "answer": "x", "finish_reason": "stop"}
    config.waiting_path.write_text(json.dumps(strange) + "\n")
    distill(config, progress=False)
    assert [record["answer"] for record in records_of(config)] == [text[::-1] for text in PROMPTS[:2]]


def test_prompts_that_are_refused_are_dropped_and_counted(make_config: Any, server: StandIn) -> None:
    server.faults = {PROMPTS[0]: [400], PROMPTS[4]: [413], PROMPTS[5]: ["content_filter"]}
    config = make_config()
    report = distill(config, progress=False)
    assert report.answers == len(PROMPTS) - 3
    assert report.dropped == {"refused by the endpoint": 3}
    assert [record["id"] for record in dropped_of(config)] == [1, 5, 6]
    assert "400" in dropped_of(config)[0]["text"]
    assert distill(config, progress=False).answers == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refuses the key .*OPENAI_API_KEY"),
        (404, "answers 404 .*check the address"),
        (400, "refuses every request .*check the model"),
    ],
)
def test_server_that_refuses_everything_is_named(
    make_config: Any, server: StandIn, status: int, message: str
) -> None:
    server.always = status
    config = make_config()
    for limit in (3, None):
        with pytest.raises(UserError, match=message):
            distill(make_config(limit=limit), progress=False)
    assert not config.out.exists() and not config.dropped_path.exists()
    server.always = None
    assert distill(config, progress=False).answers == len(PROMPTS)


def test_loops_are_dropped(make_config: Any, server: StandIn, tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("ab" * 20 + "\nabc\n", encoding="utf-8")
    assert distill(make_config(prompts=prompts), progress=False).dropped == {"loop": 1}


def test_later_turns_follow_the_answers(make_config: Any, server: StandIn, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"id": "x", "turns": ["abc", "def"]}\n{"id": "y", "prompt": "g"}\n', encoding="utf-8")
    config = make_config(prompts=prompts, answers=2, temperature=1)
    distill(config, progress=False)
    records = {record["id"]: record for record in records_of(config)}
    assert records.keys() == {"x", "x/2", "y", "x#2", "x#2/2", "y#2"}
    assert records["x/2"]["messages"][1] == {"role": "assistant", "content": "cba"}
    assert records["x/2"]["answer"] == "fed"
    tokenizer = load_tokenizer(resolve(config.model))
    assert records["x/2"]["prompt_ids"] == tokenizer.chat(records["x/2"]["messages"])


def test_unfinished_answers_have_no_end(make_config: Any, server: StandIn) -> None:
    server.faults = {PROMPTS[0]: ["length"]}
    config = make_config(limit=1)
    distill(config, progress=False)
    (record,) = records_of(config)
    assert record["finish_reason"] == "length"
    assert record["answer_ids"] == load_tokenizer(resolve(config.model)).encode(PROMPTS[0][::-1])


def test_model_without_template_continues_text(make_config: Any, server: StandIn, tmp_path: Path) -> None:
    plain = str(tiny_llama(tmp_path / "plain", chat_template=None))
    config = make_config(model=plain, limit=2)
    distill(config, progress=False)
    assert sorted(body["prompt"] for body in server.requests) == PROMPTS[:2]
    tokenizer = load_tokenizer(resolve(plain))
    assert records_of(config)[0]["answer_ids"] == [*tokenizer.encode(PROMPTS[0][::-1]), END]


def test_key_comes_from_the_environment(
    make_config: Any, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(endpoint.KEY_VARIABLE, "a-key")
    config = make_config(limit=1)
    distill(config, progress=False)
    assert server.headers[0]["authorization"] == "Bearer a-key"
    assert "a-key" not in config.record_path.read_text(encoding="utf-8")


def test_models_name_is_asked_for_or_given(make_config: Any, server: StandIn, tmp_path: Path) -> None:
    server.models = ["one", "two"]
    with pytest.raises(UserError, match="has the models one, two; choose one with --endpoint-model"):
        distill(make_config(), progress=False)
    distill(make_config(endpoint_model="two", limit=1), progress=False)
    assert server.requests[0]["model"] == "two"
    with pytest.raises(UserError, match="endpoint model two', not 'endpoint model one'"):
        distill(make_config(endpoint_model="one"), progress=False)


def test_nobody_at_the_address(make_config: Any) -> None:
    with pytest.raises(UserError, match=r"cannot ask http://127\.0\.0\.1:9/v1 for its models"):
        distill(make_config(endpoint="http://127.0.0.1:9/v1"), progress=False)


def test_waits_double_jitter_and_heed_the_server() -> None:
    assert all(0.5 <= wait_for(1, 0) <= 1 and 4 <= wait_for(4, 0) <= 8 for _ in range(50))
    assert len({wait_for(3, 0) for _ in range(20)}) > 10
    assert wait_for(20, 0) <= endpoint.LONGEST_DELAY
    assert (wait_for(1, 7), wait_for(1, 9999)) == (7, endpoint.LONGEST_DELAY)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("0.5", 0.5, 0.5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        *((said, 0, 0) for said in ("-3", "soon", "nan", "inf", "")),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: str, least: float, most: float) -> None:
    assert least <= endpoint._retry_after(httpx.Response(429, headers={"retry-after": said})) <= most
    assert endpoint._retry_after(httpx.Response(429)) == 0


def test_retry_after_may_be_a_date_to_come() -> None:
    # Made here: a date made while tests are collected may be minutes old.
    said = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 <= endpoint._retry_after(httpx.Response(429, headers={"retry-after": said})) <= 3600


def test_an_endpoint_that_asks_for_time_gets_it(
    make_config: Any, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(endpoint, "wait_for", lambda attempt, asked_for: waits.append(asked_for) or 0.0)
    server.faults, server.retry_after = {PROMPTS[0]: [429, 503, 500]}, "7"
    distill(make_config(limit=1), progress=False)
    assert waits == [7, 7, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"self_prompts": 3}, "'self_prompts' needs the model on this machine"),
        ({"engine": "cpu"}, "are the endpoint's own"),
        ({"endpoint": "localhost:80"}, "'endpoint' cannot be 'localhost:80'"),
        ({"endpoint": None, "endpoint_model": "x"}, "'endpoint_model' needs an 'endpoint'"),
    ],
)
def test_settings_that_contradict_are_named(make_config: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_config(**fields)


def test_interruption_keeps_what_is_there(
    make_config: Any, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    calls = iter(range(1000))
    settle = remote.RemoteDistiller._settle

    def stop(*arguments: Any) -> int:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return settle(*arguments)

    monkeypatch.setattr(remote.RemoteDistiller, "_settle", stop)
    with pytest.raises(KeyboardInterrupt):
        distill(config, progress=False)
    monkeypatch.undo()
    early = len(records_of(config))
    waiting = config.waiting_path.read_text().splitlines() if config.waiting_path.exists() else []
    assert early + len(waiting) >= 6
    assert [record["prompt"] for record in records_of(config)] == PROMPTS[:early]
    server.requests.clear()
    distill(config, progress=False)
    assert [record["prompt"] for record in records_of(config)] == PROMPTS
    # Requests that were under way are asked once more, and may arrive for the first time only now.
    kept = {json.loads(line)["prompt"] for line in waiting} | set(PROMPTS[:early])
    assert set(server.said()) == set(PROMPTS) - kept
