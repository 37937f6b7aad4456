"""`POST /v1/completions`: texts that go on from prompts."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from medusa_decoding.decoding.sequence import Mask
from medusa_decoding.serving.answering import Answer
from medusa_decoding.serving.jobs import Job
from medusa_decoding.serving.schema import CompletionRequest
from medusa_decoding.serving.service import Service
from medusa_decoding.serving.writing import CompletionWriter

DEFAULT_TOKENS = 16
"""OpenAI's."""


async def completion(service: Service, body: CompletionRequest, request: Request) -> Response:
    """Continue each prompt `n` times. Raises ApiError, QueueFull, Draining, Failed."""
    service.served.check_name(body.model)
    service.check_count(body.n * len(body.prompts))
    # In a thread: long prompts and large schemas must not hold up the others' tokens.
    prompts, mask = await run_in_threadpool(_prepare, service, body)
    jobs = _jobs(service, body, prompts, mask)
    writers = [
        CompletionWriter(
            service.served, place, trace=body.medusa_trace, with_logprobs=body.logprobs is not None
        )
        for place in range(len(jobs))
    ]
    answer = Answer(
        service.served, "text_completion", "text_completion", prompts, jobs, writers, body.includes_usage
    )
    return await answer.respond(service.jobs, request, stream=body.stream)


def _prepare(service: Service, body: CompletionRequest) -> tuple[list[list[int]], Callable[[], Mask] | None]:
    service.served.check_tokens([int(token) for token in body.logit_bias], "logit_bias")
    prompts = [service.served.text(prompt) for prompt in body.prompts]
    return prompts, service.grammars.of_format(body.response_format)


def _jobs(
    service: Service,
    body: CompletionRequest,
    prompts: list[list[int]],
    mask: Callable[[], Mask] | None,
) -> list[Job]:
    """The choices of the first prompt, then those of the next."""
    seed = service.seed()
    return [
        Job(
            prompt,
            body.options(service.served.room(prompt, body.max_tokens or DEFAULT_TOKENS), seed),
            choice=choice,
            speculation=body.speculative,
            logprobs=body.logprobs,
            mask=mask() if mask else None,
            trees=body.medusa_trace and body.stream,
            streamed=body.stream,
        )
        for prompt in prompts
        for choice in range(body.n)
    ]
