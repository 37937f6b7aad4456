"""What is wrong is answered with a 4xx in OpenAI's shape, which names it."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from medusa_decoding.serving.config import ServeConfig
from tests.serving.conftest import Server, running

MESSAGES = [{"role": "user", "content": "Hello"}]


def refusal(http: httpx.Client, fields: dict, path: str = "chat/completions") -> tuple[int, str | None, str]:
    base = {"messages": MESSAGES} if path.startswith("chat") else {"prompt": "Once"}
    return parts(http.post(f"/v1/{path}", json={**base, **fields}))


def parts(answer: httpx.Response) -> tuple[int, str | None, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["param"], error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 1e308}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 100}, "n"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": 0}},
            "stream_options.include_obfuscation",
        ),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"300": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"min_p": 2}, "min_p"),
        ({"top_k": -2}, "top_k"),
        ({"speculative": 0}, "speculative"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hello"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            None,
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}
                ]
            },
            None,
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tool_choice": "required"}, None),
        ({"top_logprobs": 3}, None),
        ({"stream_options": {"include_usage": True}}, None),
    ],
)
def test_values_out_of_range_are_refused_by_name(http: httpx.Client, fields: dict, param: str | None) -> None:
    status, named, message = refusal(http, fields)
    assert status == 400 and message
    assert param is None or named == param


@pytest.mark.parametrize(
    ("name", "value"),
    [("audio", {"voice": "alloy"}), ("store", True), ("web_search_options", {"x": 1}),
     ("service_tier", "flex"),
     ("best_of", 2), ("functions", [{"name": "f"}]), ("modalities", ["audio"]), ("beam_width", 3)],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(http: httpx.Client, name: str, value: object) -> None:
    status, param, message = refusal(http, {name: value})
    assert (status, param) == (400, name) and message == f"{name} is not supported: leave it out"


def test_neutral_values_are_taken(http: httpx.Client) -> None:
    neutral = {
        "audio": None, "store": False, "service_tier": "auto", "modalities": ["text"], "metadata": {},
        "parallel_tool_calls": True, "functions": [], "prediction": None, "reasoning_effort": None,
        "tools": [], "tool_choice": None, "stop": None, "logit_bias": None, "stream": None, "best_of": 1,
    }  # fmt: skip
    assert http.post("/v1/chat/completions", json={"messages": MESSAGES, **neutral}).status_code == 200


def test_another_model_is_not_found(http: httpx.Client) -> None:
    status, param, message = refusal(http, {"model": "gpt-4"})
    assert (status, param) == (404, "model") and "'tiny'" in message


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"prompt": ""}, "empty_prompt"), ({"prompt": "x" * 2000}, "context_length_exceeded"),
     ({"prompt": [300]}, "invalid_token"), ({"prompt": []}, "missing_required_parameter"),
     ({"prompt": ["a"] * 161}, "too_many_choices"), ({"prompt": [[]]}, "invalid_value"),
     ({"prompt": "a", "echo": True}, "unsupported_parameter")],
)  # fmt: skip
def test_prompts_that_cannot_be_continued_are_refused(http: httpx.Client, fields: dict, code: str) -> None:
    answer = http.post("/v1/completions", json=fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in (code, "invalid_value")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{}", b'{"messages": "\xff"}', b"[" * 50_000, b"1" * 5000,
     b'{"temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
     b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
     b'{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}'],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert parts(answer)[0] == 400


def test_a_body_that_is_too_large_is_refused_announced_or_not(http: httpx.Client) -> None:
    big = json.dumps({"messages": [{"role": "user", "content": "x" * 200_000}]}).encode()
    assert parts(http.post("/v1/chat/completions", content=big))[0] == 413
    pieces = (big[start : start + 4096] for start in range(0, len(big), 4096))
    assert parts(http.post("/v1/chat/completions", content=pieces))[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)]
)
def test_wrong_paths_and_methods(http: httpx.Client, method: str, path: str, status: int) -> None:
    assert parts(http.request(method, path))[0] == status


def test_schemas_that_are_not_supported_are_refused(http: httpx.Client) -> None:
    for schema, named in [
        ({"not": {}}, "not"),
        ({"type": "whale"}, "schema.type: input should be 'null'"),
        ({"type": "string", "pattern": "("}, "("),
        ({"$ref": "#"}, "schema"),
    ]:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        status, param, message = refusal(http, {"response_format": wanted})
        assert status == 400 and str(param).startswith("response_format") and named in message
    deep: dict = {}
    for _ in range(200):
        deep = {"items": deep}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": deep}}
    assert refusal(http, {"response_format": wanted})[0] == 400


def test_a_conversation_needs_a_chat_template() -> None:
    with running(ServeConfig(port=0), template=None) as server, server.http() as http:
        assert refusal(http, {})[2] == "this model has no chat template: use /v1/completions"
        assert http.post("/v1/completions", json={"prompt": "Once"}).status_code == 200


def test_a_fault_tells_nothing(http: httpx.Client, server: Server, monkeypatch, caplog) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret /home/somebody")

    monkeypatch.setattr(server.jobs, "submit", fail)
    with caplog.at_level(logging.ERROR):
        status, _, message = refusal(http, {})
    assert (status, message) == (500, "a fault of the server")
    assert "RuntimeError" in caplog.text and "secret" not in caplog.text and "Traceback" not in caplog.text


def test_with_a_key_every_route_but_health_needs_it() -> None:
    with running(ServeConfig(port=0, api_key="sésame")) as server, server.http() as http:
        assert http.get("/health").status_code == 200
        for path in ("/", "/metrics", "/v1/models", "/openapi.json", "/v1/nothing", "/health/../metrics"):
            for given in ("", "Bearer", "Bearer wrong", "Bearer sésame ouvre-toi", "Basic !", "sésame"):
                answer = http.get(path, headers={"Authorization": given.encode()})
                assert parts(answer)[0] == 401
        for given in ("Bearer sésame", "bearer sésame", "Basic OnPDqXNhbWU="):
            assert http.get("/v1/models", headers={"Authorization": given.encode()}).status_code == 200
