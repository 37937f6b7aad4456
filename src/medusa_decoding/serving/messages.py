"""Messages of a conversation and the tools it may call, as OpenAI writes them."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

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
    arguments: str = Field("{}", json_schema_extra={"format": "json-object"})

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


class _Message(Wire):
    """What all turns have. name: of who speaks."""

    role: str
    content: str | list[TextPart] | None
    name: str | None = None

    def for_template(self) -> dict[str, Any]:
        """As chat templates read it: text in one string."""
        content = self.content if isinstance(self.content, str) else _joined(self.content)
        # Templates know no developers, who came to the API later; what they say is the system's.
        role = "system" if self.role == "developer" else self.role
        name = {} if self.name is None else {"name": self.name}
        return {"role": role, "content": content, **name}


class InputMessage(_Message):
    """A turn of the system or the user."""

    role: Literal["system", "developer", "user"]
    content: str | list[TextPart]


class AssistantMessage(_Message):
    """A turn of the assistant, which may call and then say nothing."""

    TOGETHER: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "anyOf": [
                {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
                {
                    "required": ["tool_calls"],
                    "properties": {"tool_calls": {"type": "array", "minItems": 1}},
                },
            ]
        },
    )

    role: Literal["assistant"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] = Field([])

    @model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls:
            raise ValueError("an assistant's message needs content or tool_calls")
        return self

    def for_template(self) -> dict[str, Any]:
        """See `_Message.for_template`; calls with their arguments as objects."""
        calls = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.function.name, "arguments": call.function.parsed()},
            }
            for call in self.tool_calls
        ]
        return {**super().for_template(), **({"tool_calls": calls} if calls else {})}


class ToolMessage(_Message):
    """What a tool answered. tool_call_id: to which call."""

    role: Literal["tool"]
    content: str | list[TextPart]
    tool_call_id: str | None = None

    def for_template(self) -> dict[str, Any]:
        """See `_Message.for_template`."""
        call = {} if self.tool_call_id is None else {"tool_call_id": self.tool_call_id}
        return {**super().for_template(), **call}


Message = Annotated[InputMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


def _joined(parts: list[TextPart] | None) -> str:
    return "\n".join(part.text for part in parts or [])


class FunctionSpec(Wire):
    """A function that may be called. parameters: the schema of its arguments."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] = Field({}, json_schema_extra={"description": "A JSON schema."})
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
