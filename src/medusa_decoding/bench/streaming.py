"""One streamed answer of an OpenAI-compatible server, and when its parts came."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx

from medusa_decoding.bench.server_config import ServerBenchConfig
from medusa_decoding.distill.endpoint import authorization

Json = dict[str, Any]


class RequestFailed(Exception):
    """A request that got no whole answer; the text says why. status: the server's, if it refused."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What one request brought. Times are of a monotonic clock, in seconds.

    tokens, prompt_tokens, cached_tokens: as the server's `usage` counts them. sent, first, last: when the
    request left, when the first text came, and the last. steps, step_tokens: of decoding steps, by servers
    that say so (`medusa`), else None.
    """

    text: str
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    finish_reason: str
    sent: float
    first: float
    last: float
    steps: int | None = None
    step_tokens: int | None = None

    @property
    def time_to_first_token(self) -> float:
        """TTFT, in seconds."""
        return self.first - self.sent

    @property
    def time_per_output_token(self) -> float | None:
        """TPOT, in seconds: mean time of each token after the first; None where there is none."""
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else None


class StreamingClient:
    """Requests to a server's `/chat/completions`. model: the server's name for the model."""

    def __init__(self, config: ServerBenchConfig, model: str) -> None:
        self._config, self._model = config, model
        timeout = httpx.Timeout(config.request_timeout, connect=min(10.0, config.request_timeout), pool=None)
        self._client = httpx.AsyncClient(
            headers=authorization(), timeout=timeout, limits=httpx.Limits(max_connections=None)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(
        self, messages: list[Json], speculative: str | None, max_tokens: int | None = None
    ) -> Answer:
        """The answer to a conversation.

        speculative: the extension's value; None leaves it out. max_tokens: instead of the config's. Raises
        RequestFailed.
        """
        config = self._config
        body: Json = {
            "model": self._model, "messages": messages, "max_tokens": max_tokens or config.max_tokens,
            "temperature": config.temperature, "top_p": config.top_p, "seed": config.seed,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if speculative is not None:
            body["speculative"] = speculative
        try:
            return await self._read(body)
        except httpx.TransportError as error:
            raise RequestFailed(f"{type(error).__name__} {error}".strip()) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RequestFailed(f"an answer of no known form ({error!r})") from None

    async def _read(self, body: Json) -> Answer:
        reader = _Reader()
        async with self._client.stream("POST", f"{self._config.url}/chat/completions", json=body) as response:
            if not response.is_success:
                said = " ".join((await response.aread()).decode(errors="replace").split())[:200]
                raise RequestFailed(f"{response.status_code} {said}", response.status_code)
            async for chunk in _events(response):
                reader.take(chunk, perf_counter())
        return reader.answer()


class _Reader:
    """Puts an answer together from its chunks."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._usage: Json | None = None
        self._medusa: Json = {}
        self._reason = ""
        self._sent = perf_counter()
        self._first: float | None = None
        self._last = self._sent

    def take(self, chunk: Json, now: float) -> None:
        if "error" in chunk:
            raise RequestFailed(str(chunk["error"].get("message", "an error in the stream")))
        for choice in chunk.get("choices") or ():
            self._reason = choice.get("finish_reason") or self._reason
            # Some servers have the text of reasoning beside `content`: those are tokens too.
            said = [
                text
                for key, text in choice["delta"].items()
                if key != "role" and isinstance(text, str) and text
            ]
            if said:
                self._text.extend(said)
                self._first = now if self._first is None else self._first
                self._last = now
        self._usage = chunk.get("usage") or self._usage
        self._medusa = chunk.get("medusa") or self._medusa

    def answer(self) -> Answer:
        if not self._reason:
            raise RequestFailed("the connection ended before the answer did")
        if self._usage is None:
            raise RequestFailed("the server does not count tokens: it ignores stream_options.include_usage")
        details = self._usage.get("prompt_tokens_details") or {}
        return Answer(
            text="".join(self._text),
            tokens=int(self._usage["completion_tokens"]),
            prompt_tokens=int(self._usage["prompt_tokens"]),
            cached_tokens=int(details.get("cached_tokens") or 0),
            finish_reason=self._reason,
            sent=self._sent,
            first=self._last if self._first is None else self._first,
            last=self._last,
            steps=self._medusa.get("steps"),
            step_tokens=self._medusa.get("tokens"),
        )


async def _events(response: httpx.Response) -> AsyncIterator[Json]:
    """The objects of a stream of server-sent events, up to `[DONE]`."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield json.loads(data)
