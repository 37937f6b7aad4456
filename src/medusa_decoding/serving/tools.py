"""Calls of tools: the forms in which models write them, read from a text as it grows.

A model's chat template says how it is told of tools and in which form it is to call them. Known here is the
form of Hermes, which Qwen and many others took over:
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call. arguments: a JSON object as text."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")

    def as_object(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


@dataclass(frozen=True)
class ToolForm:
    """How a call is written: between `begin` and `end`, an object with `name` and `arguments`."""

    begin: str
    end: str
    arguments: str = "arguments"

    def read(self, text: str) -> Call | None:
        """The call whose inside is `text`; None if it is none."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            return None
        arguments = found.get(self.arguments, {})
        if not isinstance(arguments, dict):
            return None
        return Call(found["name"], json.dumps(arguments, ensure_ascii=False))

    def schema(self, functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The JSON schema of the inside of a call of one of these functions (`FunctionSpec`'s fields)."""
        return {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "name": {"const": function["name"]},
                        self.arguments: function.get("parameters") or {"type": "object"},
                    },
                    "required": ["name", self.arguments],
                    "additionalProperties": False,
                }
                for function in functions
            ]
        }


HERMES = ToolForm("<tool_call>", "</tool_call>")


def tool_form(template: str) -> ToolForm | None:
    """The form that a chat template asks for; None if it has no place for tools, or asks for another."""
    if "tools" in template and HERMES.begin in template and '"arguments"' in template:
        return HERMES
    return None


class CallReader:
    """Parts a growing text into what is said and what is called.

    What may be the beginning of a call is held back; what looked like one and is none is said.
    """

    def __init__(self, form: ToolForm) -> None:
        self._form = form
        self._held = ""
        self._inside = False
        self._called = False

    def push(self, text: str) -> Iterator[str | Call]:
        """What is certain after `text`: pieces of text, whole calls."""
        self._held += text
        while (found := self._held.find(self._mark)) >= 0:
            before, self._held = self._held[:found], self._held[found + len(self._mark) :]
            yield from self._called_or_said(before) if self._inside else self._said(before)
            self._inside = not self._inside
        if not self._inside:
            kept = _common_edge(self._held, self._form.begin)
            certain, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
            yield from self._said(certain)

    def finish(self) -> Iterator[str | Call]:
        """What is left at the end; a call that lacks only its end mark (a stop string?) counts."""
        rest, self._held = self._held, ""
        if self._inside:
            call = self._form.read(rest)
            yield call if call is not None else self._form.begin + rest
        else:
            yield from self._said(rest)

    @property
    def _mark(self) -> str:
        return self._form.end if self._inside else self._form.begin

    def _called_or_said(self, inside: str) -> Iterator[str | Call]:
        call = self._form.read(inside)
        self._called |= call is not None
        yield call if call is not None else f"{self._form.begin}{inside}{self._form.end}"

    def _said(self, text: str) -> Iterator[str | Call]:
        # Line breaks between and after calls belong to the form.
        if text and not (self._called and text.isspace()):
            yield text


def _common_edge(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)
