"""Whatever the server's own description allows, and much that it does not: never a fault of the server."""

from __future__ import annotations

import os
from collections import Counter

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
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
_SETTLED = {"model": "tiny", "stream_options": None, "logit_bias": {"5": 1}, "max_tokens": 4, "n": 1}
"""What the description cannot say: names, token ids, and fields that need each other."""
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def description(shared_server: Server) -> schemathesis.BaseSchema:
    shared_server.jobs.reset()
    shared_server.jobs.reply = "Short."
    return schemathesis.openapi.from_url(f"{shared_server.url}/openapi.json")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/v1/chat/completions", POSITIVE),
        ("POST", "/v1/chat/completions", NEGATIVE),
        ("POST", "/v1/completions", POSITIVE),
        ("POST", "/v1/completions", NEGATIVE),
        ("GET", "/v1/models/{name}", POSITIVE),
    ],
)
def test_described_requests_and_their_opposites_are_answered(
    description: schemathesis.BaseSchema, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    seen: Counter[int] = Counter()

    @SETTINGS
    @given(case=description[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        if mode is POSITIVE and isinstance(case.body, dict):
            case.body.update(_SETTLED)
        answer = case.call(timeout=30)
        seen[answer.status_code] += 1
        assert answer.status_code in (200, 400, 404, 405, 413, 422), answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    check()
    print(seen)
    assert seen


@SETTINGS
@given(body=st.binary(max_size=200))
def test_bytes_are_answered(shared_server: Server, body: bytes) -> None:
    answer = httpx.post(f"{shared_server.url}/v1/chat/completions", content=body, trust_env=False)
    assert 400 <= answer.status_code < 500
