"""Messages of a conversation and the tools it may call, as OpenAI writes them."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from medusa_decoding.serving.wire import DEEPEST, Wire, is_too_deep

_NAME = r"^[a-zA-Z0-9_.-]{1,64}$"


class TextPart(Wire):
    """A piece of a message's text; other kinds of content are not supported."""

    type: Literal["text"]
    text: str


class CalledFunction(Wire):
    """What an assistant called. arguments: an object in JSON."""

    name: str = Field(pattern=_NAME)
    arguments: str = "{}"

    @model_validator(mode="after")
    def _holds_an_object(self) -> CalledFunction:
        self.parsed()
        return self

    def parsed(self) -> dict[str, Any]:
        """The arguments. Raises ValueError where they are no JSON object."""
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or is_too_deep(found):
            raise ValueError("arguments must be a JSON object, in a string")
        return found


class ToolCall(Wire):
    """A call that an assistant's earlier turn made."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Wire):
    """One turn. tool_calls: of an assistant, which may then say nothing. tool_call_id: whose result a tool's
    message is.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] = Field([])
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls are an assistant's, not a {self.role}'s")
        if self.content is None and not self.tool_calls:
            raise ValueError(f"a message of role {self.role} needs content")
        return self

    def for_template(self) -> dict[str, Any]:
        """As chat templates read it: text in one string, calls with their arguments as objects."""
        content = self.content if isinstance(self.content, str) else _joined(self.content)
        # Templates know no developers, who came to the API later; what they say is the system's.
        role = "system" if self.role == "developer" else self.role
        turn: dict[str, Any] = {"role": role, "content": content}
        if self.tool_calls:
            turn["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {"name": call.function.name, "arguments": call.function.parsed()},
                }
                for call in self.tool_calls
            ]
        more = {"name": self.name, "tool_call_id": self.tool_call_id}
        return {**turn, **{name: value for name, value in more.items() if value is not None}}


def _joined(parts: list[TextPart] | None) -> str:
    return "\n".join(part.text for part in parts or [])


class FunctionSpec(Wire):
    """A function that may be called. parameters: the schema of its arguments."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] = Field({})
    strict: bool | None = None

    @model_validator(mode="after")
    def _is_not_too_deep(self) -> FunctionSpec:
        if is_too_deep(self.parameters):
            raise ValueError(f"parameters may have {DEEPEST} levels")
        return self


class ToolSpec(Wire):
    """A tool that may be called."""

    type: Literal["function"]
    function: FunctionSpec

    def for_template(self) -> dict[str, Any]:
        """As chat templates read it."""
        return {
            "type": "function",
            "function": self.function.model_dump(exclude_none=True, exclude={"strict"}),
        }


class NamedFunction(Wire):
    """The name of a function."""

    name: str = Field(pattern=_NAME)


class NamedTool(Wire):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["auto", "none", "required"] | NamedTool
