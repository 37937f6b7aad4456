"""The server's OpenAPI document: what the types of requests say, and what only the served model can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medusa_decoding.serving.schema import MOST_CHOICES, MOST_PROMPTS, ChatRequest, CompletionRequest
from medusa_decoding.serving.served import Served

Json = dict[str, Any]
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def describe(document: Json, served: Served, most_texts: int) -> Json:
    """`document`, changed to name the model that is served and its bounds.

    most_texts: that one request may ask for.
    """
    schemas: Json = document["components"]["schemas"]
    for kind in (ChatRequest, CompletionRequest):
        fields = schemas[kind.__name__]["properties"]
        fields["model"] = {"enum": [served.name, None]}
        fields["n"]["anyOf"][0]["maximum"] = min(MOST_CHOICES, most_texts)
        fields["logit_bias"]["anyOf"][0] = _biases(served.vocabulary_size)
    if served.tools is None:
        schemas[ChatRequest.__name__]["properties"] |= {
            "tools": {"enum": [None, []], "description": "This model's template knows no calls."},
            "tool_choice": {"enum": [None, "auto", "none"]},
        }
    schemas[CompletionRequest.__name__]["properties"]["prompt"] = {
        "anyOf": list(_prompts(served, most_texts))
    }
    _write_integers(document)
    return document


def _biases(vocabulary: int) -> Json:
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^({'|'.join(below(vocabulary))})$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "maxProperties": 1024,
    }


def _prompts(served: Served, most_texts: int) -> Iterator[Json]:
    text: Json = {"type": "string"} if served.tokenizer.encode("") else {"type": "string", "minLength": 1}
    token = {"type": "integer", "minimum": 0, "maximum": served.vocabulary_size - 1}
    tokens = {"type": "array", "items": token, "minItems": 1, "maxItems": served.context_length - 1}
    most = min(MOST_PROMPTS, most_texts)
    yield from (text, tokens)
    for one in (text, tokens):
        yield {"type": "array", "items": one, "minItems": 1, "maxItems": most}


def below(bound: int) -> list[str]:
    """Regular expressions whose union is the decimal numbers from 0 to `bound` - 1.

    below(49152): 0, [1-9][0-9]{0,3}, [1-3][0-9]{4}, 4[0-8][0-9]{3}, 490[0-9]{2}, ...
    """
    digits = str(bound)
    found = ["0"] if bound > 0 else []
    if len(digits) > 1:
        found.append(f"[1-9][0-9]{{0,{len(digits) - 2}}}")
    for place, digit in enumerate(map(int, digits)):
        least, rest = (0 if place else 1), len(digits) - place - 1
        if digit > least:
            found.append(f"{digits[:place]}[{least}-{digit - 1}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return found


def _write_integers(described: Any) -> None:
    """Bounds of integers as such: as floats, the largest are others."""
    if isinstance(described, dict):
        bounds = described.keys() & _BOUNDS if described.get("type") == "integer" else ()
        described |= {name: int(described[name]) for name in bounds}
    for one in described.values() if isinstance(described, dict) else described:
        if isinstance(one, dict | list):
            _write_integers(one)
