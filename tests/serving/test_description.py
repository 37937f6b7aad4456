"""The OpenAPI document says what this server takes of this model."""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from medusa_decoding.serving.config import ServeConfig
from medusa_decoding.serving.description import below
from tests.serving.conftest import running
from tests.tiny import VOCABULARY_SIZE

HELLO = [{"role": "user", "content": "Hello"}]
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


def validator(document: dict, name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    )


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"model": "tiny", "temperature": None, "audio": None, "functions": [], "store": False}, True),
        ({"store": True}, False),
        ({"beam_width": 3}, False),
        ({"model": "gpt-4"}, False),
        ({"n": 2.0}, True),
        ({"n": 129}, False),
        ({"logit_bias": {str(VOCABULARY_SIZE - 1): -100}}, True),
        ({"logit_bias": {str(VOCABULARY_SIZE): 1}}, False),
        ({"logit_bias": {"007": 1}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream_options": {"include_usage": True}}, False),
        ({"logprobs": True, "top_logprobs": 3}, True),
        ({"top_logprobs": 3}, False),
        ({"max_tokens": 3, "max_completion_tokens": 4}, False),
        ({"tool_choice": "required"}, False),
        ({"messages": [{"role": "user"}]}, False),
        ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [CALL]}]}, True),
        ({"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": []}]}, False),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [CALL]}]}, False),
        ({"response_format": {"type": "xml"}}, False),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, True),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
            False,
        ),
    ],
)
def test_the_document_and_the_server_agree(http: httpx.Client, fields: dict, taken: bool) -> None:
    body = {"messages": HELLO, **fields}
    assert validator(http.get("/openapi.json").json(), "ChatRequest").is_valid(body) == taken
    assert (http.post("/v1/chat/completions", json=body).status_code == 200) == taken


@pytest.mark.parametrize(
    ("prompt", "taken"),
    [("a", True), ("", False), ([VOCABULARY_SIZE - 1], True), ([VOCABULARY_SIZE], False), (["a", "b"], True),
     ([[1], [2]], True), ([], False), ([1, "a"], False)],
)  # fmt: skip
def test_prompts_are_described(http: httpx.Client, prompt: object, taken: bool) -> None:
    body = {"prompt": prompt}
    assert validator(http.get("/openapi.json").json(), "CompletionRequest").is_valid(body) == taken
    assert (http.post("/v1/completions", json=body).status_code == 200) == taken


def test_tools_are_described_where_the_model_calls_some() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    for with_form, arguments in ((True, ()), (False, (template,))):
        with running(ServeConfig(port=0), *arguments) as server, server.http() as http:
            known = validator(http.get("/openapi.json").json(), "ChatRequest")
            assert known.is_valid({"messages": HELLO, "tools": []})
            assert known.is_valid({"messages": HELLO, "tools": [tool], "tool_choice": "auto"}) == with_form


@given(bound=st.integers(1, 300_000), number=st.integers(0, 400_000))
def test_numbers_below_a_bound_are_matched(bound: int, number: int) -> None:
    found = re.compile("|".join(below(bound)))
    assert (found.fullmatch(str(number)) is not None) == (number < bound)
    assert found.fullmatch(str(bound)) is None and found.fullmatch(str(bound - 1))
    assert not found.fullmatch(f"0{number}")
