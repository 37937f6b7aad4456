"""From a request's jobs to its answer, streamed or whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from medusa_decoding.decoding import Statistics
from medusa_decoding.serving.errors import error_response
from medusa_decoding.serving.jobs import Job, Jobs, Ticket
from medusa_decoding.serving.served import Served
from medusa_decoding.serving.streaming import ClientLeft, EventStream, merged, while_connected
from medusa_decoding.serving.writing import Json, Writer

CLIENT_CLOSED_REQUEST = 499
"""The status that nobody reads, of a request whose client left: nginx's number for it."""


@dataclass
class Answer:
    """A request on its way. jobs and writers: one of each per choice. prompts: token ids of each prompt.

    kind: "chat.completion" or "text_completion"; chunk: the kind of a stream's chunks.
    """

    served: Served
    kind: str
    chunk: str
    prompts: Sequence[Sequence[int]]
    jobs: Sequence[Job]
    writers: Sequence[Writer]
    includes_usage: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    async def respond(self, jobs: Jobs, request: Request, *, stream: bool) -> Response:
        """Submit the jobs and answer. Raises what `Jobs.submit` raises, and `Failed`."""
        tickets = jobs.submit(self.jobs)
        if stream:
            return EventStream(self._events(tickets), lambda: _cancel(tickets))
        try:
            await while_connected(request.receive, self._write(tickets))
        except ClientLeft:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        finally:
            _cancel(tickets)
        choices = [writer.whole() for writer in self.writers]
        return JSONResponse({**self._heading(self.kind), "choices": choices, **self._totals()})

    async def _write(self, tickets: Sequence[Ticket]) -> None:
        async with aclosing(merged(tickets)) as events:
            async for place, found in events:
                for _ in self.writers[place].push(found):
                    pass

    async def _events(self, tickets: Sequence[Ticket]) -> AsyncGenerator[Json, None]:
        heading = self._heading(self.chunk)
        usage = {"usage": None} if self.includes_usage else {}
        try:
            async with aclosing(merged(tickets)) as events:
                async for place, found in events:
                    for chunk in self.writers[place].push(found):
                        yield {**heading, **chunk, **usage}
        except Exception as error:  # The status is sent: what went wrong must be told in the stream.
            yield _error_event(error)
            return
        if self.includes_usage:
            yield {**heading, "choices": [], **self._totals()}

    def _heading(self, kind: str) -> Json:
        prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": None,
        }

    def _totals(self) -> Json:
        """Tokens of all choices, each prompt counted once, and what drafting brought to all."""
        statistics = Statistics()
        for writer in self.writers:
            if writer.finished is not None:
                statistics.add(writer.finished.statistics)
        written = sum(len(writer.emitted) for writer in self.writers)
        read = sum(map(len, self.prompts))
        usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": self._reused()},
        }
        return {"usage": usage, "medusa": self.served.figures(statistics)}

    def _reused(self) -> int:
        """Prompt tokens that were there before: a prompt's choices share what the first one brought."""
        firsts = self.writers[:: max(1, len(self.writers) // len(self.prompts))]
        return sum(writer.finished.reused for writer in firsts if writer.finished is not None)


def _cancel(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.cancel()


def _error_event(error: Exception) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(bytes(error_response(error).body))
    return found
