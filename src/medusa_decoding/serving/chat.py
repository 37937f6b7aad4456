"""`POST /v1/chat/completions`: from a conversation to the assistant's next turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from medusa_decoding.decoding.sequence import Mask
from medusa_decoding.serving.answering import Answer
from medusa_decoding.serving.errors import ApiError
from medusa_decoding.serving.jobs import Job
from medusa_decoding.serving.messages import NamedTool
from medusa_decoding.serving.schema import ChatRequest
from medusa_decoding.serving.service import Service
from medusa_decoding.serving.tools import CallReader, ToolForm
from medusa_decoding.serving.writing import ChatWriter


@dataclass(frozen=True)
class _Prepared:
    """What takes time: the conversation's token ids, and a maker of masks where the text is constrained."""

    prompt: list[int]
    mask: Callable[[], Mask] | None


async def chat_completion(service: Service, body: ChatRequest, request: Request) -> Response:
    """Answer a conversation. Raises ApiError, QueueFull, Draining, Failed."""
    service.served.check_name(body.model)
    service.check_count(body.n)
    # In a thread: long conversations and large schemas must not hold up the others' tokens.
    prepared = await run_in_threadpool(_prepare, service, body)
    answer = Answer(
        service.served,
        "chat.completion",
        "chat.completion.chunk",
        [prepared.prompt],
        _jobs(service, body, prepared),
        [_writer(service, body, place) for place in range(body.n)],
        body.includes_usage,
    )
    return await answer.respond(service.jobs, request, stream=body.stream)


def _prepare(service: Service, body: ChatRequest) -> _Prepared:
    tools = [tool.for_template() for tool in body.tools] if body.tool_choice != "none" else []
    messages = [message.for_template() for message in body.messages]
    if tools and service.served.tools is None:
        message = "this model's chat template defines no form of calling tools that is known here"
        raise ApiError(400, message, param="tools", code="unsupported_parameter")
    prompt = service.served.chat(messages, tools)
    service.served.check_tokens([int(token) for token in body.logit_bias], "logit_bias")
    form = _forced(service, body)
    if form is not None:
        if body.response_format is not None and body.response_format.type != "text":
            message = "response_format and a required tool contradict each other: leave one out"
            raise ApiError(400, message, param="response_format", code="invalid_value")
        return _Prepared(prompt, service.grammars.of_calls(form, _functions(body)))
    return _Prepared(prompt, service.grammars.of_format(body.response_format))


def _forced(service: Service, body: ChatRequest) -> ToolForm | None:
    """The form of the call that must be made, if one must."""
    return service.served.tools if body.tool_choice not in (None, "auto", "none") else None


def _functions(body: ChatRequest) -> list[dict[str, object]]:
    """The functions of which one must be called. Raises ApiError where none has the name."""
    functions = [tool.function.model_dump() for tool in body.tools]
    if not isinstance(body.tool_choice, NamedTool):
        return functions
    name = body.tool_choice.function.name
    named = [function for function in functions if function["name"] == name]
    if not named:
        raise ApiError(400, f"no tool is named {name}", param="tool_choice", code="invalid_value")
    return named


def _jobs(service: Service, body: ChatRequest, prepared: _Prepared) -> list[Job]:
    options = body.options(service.served.room(prepared.prompt, body.most_tokens), service.seed())
    return [
        Job(
            prepared.prompt,
            options,
            choice=place,
            speculation=body.speculative,
            logprobs=body.wanted_logprobs,
            mask=prepared.mask() if prepared.mask else None,
            trees=body.medusa_trace and body.stream,
            streamed=body.stream,
        )
        for place in range(body.n)
    ]


def _writer(service: Service, body: ChatRequest, place: int) -> ChatWriter:
    form = service.served.tools if body.tools and body.tool_choice != "none" else None
    return ChatWriter(
        service.served,
        place,
        trace=body.medusa_trace,
        with_logprobs=body.logprobs,
        reader=CallReader(form) if form else None,
    )
