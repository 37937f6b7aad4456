"""Texts that a grammar's mask guides are JSON of the schema, whatever is drawn."""

from __future__ import annotations

import json
import threading
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest
from openai import OpenAI

from medusa_decoding.models import Tokenizer
from medusa_decoding.serving import compiling
from medusa_decoding.serving.errors import ApiError
from medusa_decoding.serving.grammar import Grammars
from medusa_decoding.serving.jobs import Unsupported
from medusa_decoding.serving.schema import JsonObjectFormat, JsonSchemaFormat, TextFormat
from medusa_decoding.serving.served import Served
from medusa_decoding.serving.tools import HERMES
from tests.serving.conftest import Server
from tests.tiny import VOCABULARY_SIZE, tiny_tokenizer

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 3},
        "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]},
    },
    "required": ["name", "age", "tags", "next"],
    "additionalProperties": False,
    "$defs": {
        "point": {
            "type": "object",
            "properties": {"x": {"type": "boolean"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    # As engines have them: more rows of logits than there are tokens.
    return Grammars(Served("tiny", Tokenizer(tiny_tokenizer()), VOCABULARY_SIZE + 6, 1024))


def of_schema(schema: dict[str, Any]) -> JsonSchemaFormat:
    return JsonSchemaFormat.model_validate(
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )


def drawn(mask: Any, ends: frozenset[int], random: np.random.Generator, most: int = 400) -> list[int] | None:
    """Tokens drawn evenly from what the mask allows, in steps of one to three; None if they do not end."""
    tokens: list[int] = []
    while len(tokens) < most:
        path: list[int] = []
        for _ in range(random.integers(1, 4)):
            allowed = np.flatnonzero(mask.allowed(path))
            path.append(int(random.choice(allowed)))
            if path[-1] in ends:
                return tokens + path[:-1]
        tokens += path
        mask.advance(path)
    return None


def test_drawn_texts_are_of_the_schema(grammars: Grammars) -> None:
    make = grammars.of_format(of_schema(PERSON))
    assert make is not None
    tokenizer = grammars._served.tokenizer
    for seed in range(100):
        tokens = drawn(make(), tokenizer.eos_ids, np.random.default_rng(seed))
        assert tokens is not None
        jsonschema.validate(json.loads(tokenizer.decode(tokens)), PERSON)


def test_an_object_may_hold_anything_but_is_one(grammars: Grammars) -> None:
    make = grammars.of_format(JsonObjectFormat(type="json_object"))
    assert make is not None
    tokenizer, mask = grammars._served.tokenizer, make()
    ids = tokenizer.encode('{"ä": [1, {"b": null}]}', special=False)
    for place, token in enumerate(ids):
        assert mask.allowed(ids[:place])[token]
    assert np.flatnonzero(mask.allowed(ids)).tolist() == sorted(tokenizer.eos_ids)
    assert not mask.allowed([])[tokenizer.encode("[", special=False)[0]]


def test_asking_changes_nothing(grammars: Grammars) -> None:
    make = grammars.of_format(of_schema(PERSON))
    assert make is not None
    ids = grammars._served.tokenizer.encode('{"name": "Bo", "age": 7', special=False)
    asked, fresh = make(), make()
    for place in range(len(ids)):
        asked.allowed(ids[: place + 1])
    assert np.array_equal(asked.allowed([]), fresh.allowed([]))
    asked.advance(ids[:5])
    assert np.array_equal(asked.allowed(ids[5:]), fresh.allowed(ids))


@pytest.mark.parametrize("text", ['{"name": "", "age": 1, "tags": [], "next": null}'])
def test_after_the_end_only_the_end_is_allowed(grammars: Grammars, text: str) -> None:
    make = grammars.of_format(of_schema(PERSON))
    assert make is not None
    mask, tokenizer = make(), grammars._served.tokenizer
    ids, ends = tokenizer.encode(text, special=False), sorted(tokenizer.eos_ids)
    for path in (ids, [*ids, ends[0]], [*ids, ends[0], ends[0]]):
        assert np.flatnonzero(mask.allowed(path)).tolist() == ends
    mask.advance([*ids, ends[0]])
    assert np.flatnonzero(mask.allowed([])).tolist() == ends


def test_a_token_that_was_not_allowed_is_a_fault(grammars: Grammars) -> None:
    make = grammars.of_format(of_schema(PERSON))
    assert make is not None
    with pytest.raises(RuntimeError, match="grammar"):
        make().advance(grammars._served.tokenizer.encode("nonsense", special=False))


def test_any_text_needs_no_mask(grammars: Grammars) -> None:
    assert grammars.of_format(None) is grammars.of_format(TextFormat(type="text")) is None


def test_a_schema_is_kept_through_the_api(client: OpenAI, server: Server) -> None:
    server.jobs.random = True
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Who?"}], response_format=wanted, n=4, seed=3
    )
    found = [json.loads(choice.message.content) for choice in answer.choices]
    for one in found:
        jsonschema.validate(one, PERSON)
    assert len({json.dumps(one) for one in found}) > 1


def chain(length: int) -> dict[str, Any]:
    """A schema whose places each refer to the next one."""
    places = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**places, f"d{length}": {"type": "string"}}}


def test_long_chains_of_references_are_compiled_or_refused(grammars: Grammars) -> None:
    # On a stack of 8 MB, 1,100 of them ended the process.
    make = grammars.of_format(of_schema(chain(1500)))
    assert make is not None and np.flatnonzero(make().allowed([])).size
    with pytest.raises(ApiError, match="levels times its references"):
        grammars.of_format(of_schema(chain(20_000)))
    deep = {"name": "f", "parameters": chain(20_000)}
    with pytest.raises(ApiError, match="levels times its references"):
        grammars.of_calls(HERMES, [deep])


@pytest.mark.parametrize("schema", [{"const": 10**400}, {"enum": [float("nan")]}])
def test_what_the_compiler_cannot_read_is_refused(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="not supported"):
        grammars.of_format(of_schema(schema))


def test_a_text_that_becomes_too_complex_is_the_requests_fault(grammars: Grammars) -> None:
    make = grammars.of_format(of_schema({"type": "string", "pattern": "^" + "(a|bc)*" * 1000 + "$"}))
    assert make is not None
    with pytest.raises(Unsupported, match="too complex"):
        make().advance(grammars._served.tokenizer.encode('"aaaa', special=False))


def test_the_client_is_told_that_a_text_became_too_complex(client: OpenAI) -> None:
    schema = {"type": "string", "pattern": "^" + "(a|bc)*" * 1000 + "$"}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="too complex") as caught:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Who?"}], response_format=wanted
        )
    assert caught.value.code == "unsupported_schema"


def test_a_schema_that_takes_too_long_to_compile_is_refused(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "PATIENCE", 0.05)
    waiting = threading.Event()
    monkeypatch.setattr(Grammars, "_of_schema", lambda *_: waiting.wait(20))
    with pytest.raises(ApiError, match="takes too long"):
        grammars.of_format(of_schema(PERSON))
    waiting.set()
