"""Whatever the server's own description allows, and much that it does not: never a fault of the server."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import Server

CASES = int(os.environ.get("MEDUSA_SCHEMA_CASES", "60"))
"""Per route and kind of case: 60 in CI; the 2,000 of a release are asked for by hand."""

SETTINGS = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
REFUSED = {400: "wrong", 404: "another model", 413: "too large", 429: "too many"}


def register() -> None:
    """Tell schemathesis what the formats of the description mean that it does not know."""
    values = st.none() | st.booleans() | st.integers() | st.text(max_size=9)
    objects = st.dictionaries(st.text(max_size=9), values | st.lists(values, max_size=3), max_size=3)
    schemathesis.openapi.format("json-object", objects.map(json.dumps))


register()


def negatable(document: Any) -> Any:
    """The document without the recursion that schemathesis cannot make the opposite of."""
    if isinstance(document, list):
        return [negatable(one) for one in document]
    if not isinstance(document, dict):
        return document
    return {
        name: {"type": ["object", "boolean"]}
        if name == "additionalProperties" and "TextSchema" in str(value)
        else negatable(value)
        for name, value in document.items()
    }


@pytest.fixture(scope="module")
def description(shared_server: Server) -> schemathesis.BaseSchema:
    shared_server.jobs.reset()
    shared_server.jobs.reply = "Short."
    document = httpx.get(f"{shared_server.url}/openapi.json", trust_env=False).json()
    return schemathesis.openapi.from_dict(negatable(document))


def answers(
    url: str, description: schemathesis.BaseSchema, method: str, path: str, mode: schemathesis.GenerationMode
) -> Counter[int]:
    """How many cases were answered with each status; each answer is one that the description knows."""
    seen: Counter[int] = Counter()

    @SETTINGS
    @given(case=description[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        answer = case.call(base_url=url, timeout=60)
        seen[answer.status_code] += 1
        assert answer.status_code in (200, *REFUSED), answer.text
        if mode is NEGATIVE:
            assert answer.status_code in REFUSED, case.body
        if answer.status_code in REFUSED:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    check()
    return seen


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_most_requests_that_are_described_are_answered(
    shared_server: Server, description: schemathesis.BaseSchema, path: str
) -> None:
    seen = answers(shared_server.url, description, "POST", path, POSITIVE)
    assert seen[200] >= 0.6 * seen.total(), seen


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_requests_that_the_description_forbids_are_refused(
    shared_server: Server, description: schemathesis.BaseSchema, path: str
) -> None:
    assert answers(shared_server.url, description, "POST", path, NEGATIVE)


def test_any_name_of_a_model_is_answered(shared_server: Server, description: schemathesis.BaseSchema) -> None:
    assert answers(shared_server.url, description, "GET", "/v1/models/{name}", POSITIVE)


@SETTINGS
@given(body=st.binary(max_size=200))
def test_bytes_are_answered(shared_server: Server, body: bytes) -> None:
    answer = httpx.post(f"{shared_server.url}/v1/chat/completions", content=body, trust_env=False)
    assert 400 <= answer.status_code < 500
