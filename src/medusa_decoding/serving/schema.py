"""What a request may say: OpenAI's fields and this server's own, each with its bounds."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from medusa_decoding.generation.options import GenerationOptions
from medusa_decoding.serving.messages import Message, ToolChoice, ToolSpec
from medusa_decoding.serving.text_schema import TextSchema
from medusa_decoding.serving.wire import DEEPEST, Wire, is_too_deep

_TOKEN = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]
_BIAS = Annotated[float, Field(ge=-100, le=100)]
_STOP = Annotated[str, StringConstraints(min_length=1, max_length=512)]
_MOST_TOKENS = 2**31 - 1
MOST_CHOICES = 128
MOST_PROMPTS = 128
"""Of one request; texts, which are choices times prompts, have the server's own bound."""


class StreamOptions(Wire):
    """How a stream ends. include_usage: with one more chunk, which counts tokens."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {"include_obfuscation": (False,)}

    include_usage: bool = False


class JsonSchema(Wire):
    """A schema and its name, which is for people."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: TextSchema = Field(TextSchema.model_validate({}), alias="schema")
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_not_too_deep(cls, data: Any) -> Any:
        if is_too_deep(data):
            raise ValueError(f"a schema may have {DEEPEST} levels")
        return data


class TextFormat(Wire):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Wire):
    """One JSON object, whatever it holds."""

    type: Literal["json_object"]


class JsonSchemaFormat(Wire):
    """JSON that a schema allows."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class Request(Wire):
    """What both kinds of completions take.

    temperature ... logit_bias, top_k ... repetition_penalty: see `SamplingParameters`; top_k -1 is off, too.
    seed: none takes one by chance. n: texts, which differ. speculative: whether drafts are verified: as the
    planner says, never, or trees of so many rows; the text is the same. medusa_trace: stream each step's tree
    and where each token came from. user: is ignored.
    """

    TOGETHER: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "anyOf": [
                {"properties": {"stream": {"const": True}}, "required": ["stream"]},
                {"properties": {"stream_options": {"type": "null"}}},
            ]
        },
    )
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "best_of": (1,),
        "echo": (False,),
        "function_call": ("auto", "none"),
        "modalities": (["text"],),
        "parallel_tool_calls": (True,),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "verbosity": ("medium",),
    }

    model: str | None = Field(None, max_length=512)
    max_tokens: int | None = Field(None, ge=1, le=_MOST_TOKENS)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: _STOP | Annotated[list[_STOP], Field(max_length=16)] = Field([])
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: dict[_TOKEN, _BIAS] = Field({}, max_length=1024)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    user: str | None = None
    top_k: int = Field(0, ge=-1, le=_MOST_TOKENS)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    speculative: Literal["auto", "off"] | Annotated[int, Field(ge=1, le=64)] = "auto"
    medusa_trace: bool = False

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, data: Any) -> Any:
        """JSON can write halves of characters, and levels without end."""
        if not isinstance(data, dict):
            return data
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("the request holds half a character, which is no Unicode text") from None
        except RecursionError:
            raise ValueError("the request has too many levels") from None
        return data

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for streams: set stream, or leave them out")
        return self

    @property
    def includes_usage(self) -> bool:
        """Whether the stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def options(self, max_tokens: int, seed: int) -> GenerationOptions:
        """As the scheduler takes them; `seed` where the request names none."""
        return GenerationOptions(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=max(self.top_k, 0),
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias={int(token): bias for token, bias in self.logit_bias.items()},
            seed=(seed if self.seed is None else self.seed) % 2**64,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
        )


class ChatRequest(Request):
    """A conversation to be continued by the assistant.

    max_completion_tokens: the newer name of max_tokens; without either, as many as the context leaves.
    """

    TOGETHER: ClassVar[tuple[dict[str, Any], ...]] = (
        *Request.TOGETHER,
        {
            "anyOf": [
                {"properties": {"max_tokens": {"type": "null"}}},
                {"properties": {"max_completion_tokens": {"type": "null"}}},
            ],
            "description": "Both only where they are equal.",
        },
        {
            "anyOf": [
                {"properties": {"logprobs": {"const": True}}, "required": ["logprobs"]},
                {"properties": {"top_logprobs": {"type": "null"}}},
            ]
        },
        {
            "anyOf": [
                {"properties": {"tools": {"type": "array", "minItems": 1}}, "required": ["tools"]},
                {"properties": {"tool_choice": {"enum": [None, "auto", "none"]}}},
            ]
        },
    )

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=_MOST_TOKENS)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[ToolSpec] = Field([], max_length=128)
    tool_choice: ToolChoice | None = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> ChatRequest:
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            raise ValueError("max_tokens and max_completion_tokens contradict each other: leave one out")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: set it to true")
        if self.tool_choice not in (None, "auto", "none") and not self.tools:
            raise ValueError("tool_choice needs tools")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """As `Job.logprobs`."""
        return (self.top_logprobs or 0) if self.logprobs else None


_TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=_MOST_TOKENS)]], Field(min_length=1)]


class CompletionRequest(Request):
    """A text to be continued: one or several, as strings or token ids."""

    prompt: (
        str | _TokenIds | Annotated[list[str] | list[_TokenIds], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each text to be continued."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(part, int) for part in self.prompt):
            return [[part for part in self.prompt if isinstance(part, int)]]
        return [part for part in self.prompt if not isinstance(part, int)]
