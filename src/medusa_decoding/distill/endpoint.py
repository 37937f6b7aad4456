"""An OpenAI-compatible endpoint: one answer per request, with retries."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from medusa_decoding.distill.answers import JsonObject
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"
# A request is given up after this many attempts: with the delays below, after about three minutes of waiting.
ATTEMPTS = 8
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
_REFUSED = {400, 413, 422}
_PASSING = {408, 409, 425, 429}


class Refused(Exception):
    """The endpoint will not answer this one request; the text says why."""


@dataclass(frozen=True)
class Completion:
    """An answer as text. finish_reason: "stop" or "length"."""

    text: str
    finish_reason: str


class Endpoint:
    """Requests to `config.endpoint`. model: the endpoint's name for the model.

    The key is taken from the environment variable OPENAI_API_KEY, if it is set.
    """

    def __init__(self, config: DistillConfig, model: str) -> None:
        assert config.endpoint is not None
        self._config, self._url, self._model = config, config.endpoint.rstrip("/"), model
        self._client = httpx.AsyncClient(headers=authorization(), timeout=_timeout(config))
        self._places = asyncio.Semaphore(config.concurrency)

    async def complete(self, asked: JsonObject, seed: int) -> Completion:
        """The answer to `{"messages": [...]}` or `{"prompt": text}`.

        Raises Refused where the endpoint refuses this request, UserError where it refuses all or stays away.
        """
        kind = "chat/completions" if "messages" in asked else "completions"
        config = self._config
        body = {
            "model": self._model, **asked, "max_tokens": config.max_tokens, "temperature": config.temperature,
            "top_p": config.top_p, "seed": seed, "n": 1, "stream": False,
        }  # fmt: skip
        async with self._places:
            return await self._persist(f"{self._url}/{kind}", body)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _persist(self, url: str, body: JsonObject) -> Completion:
        """Exponential backoff with jitter, so that many requests do not come back at the same moment."""
        fault, asked_for = "", 0.0
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(wait_for(attempt, asked_for))
            asked_for = 0.0
            try:
                response = await self._client.post(url, json=body)
                if response.is_success:
                    return _completion(response.json())
                asked_for = _retry_after(response)
                fault = f"{response.status_code} {_reason(response)}"
                _check(response.status_code, fault, self._url)
            except (httpx.TransportError, httpx.DecodingError) as error:
                fault = f"{type(error).__name__} {error}".strip()
            except (ValueError, LookupError, TypeError) as error:
                fault = f"an answer of no known form ({error!r})"
        raise UserError(
            f"{self._url} failed {ATTEMPTS} times, the last time with: {fault};"
            " what is finished is kept, and the same command goes on from there"
        )


def model_at(config: DistillConfig) -> str:
    """The endpoint's name for the model: the one that was given, or the only one it has."""
    if config.endpoint_model is not None:
        return config.endpoint_model
    assert config.endpoint is not None
    url = config.endpoint.rstrip("/")
    names = served_models(url, config.request_timeout, "--endpoint-model")
    if len(names) != 1 and config.model not in names:
        listed = ", ".join(names[:10]) or "none"
        raise UserError(f"{url} has the models {listed}; choose one with --endpoint-model")
    return config.model if config.model in names else names[0]


def served_models(url: str, timeout: float, option: str) -> list[str]:
    """The models of the server at `url`. option: how a user names one instead, for the error's message."""
    try:
        response = httpx.get(f"{url}/models", headers=authorization(), timeout=timeout)
        response.raise_for_status()
        return [str(one["id"]) for one in response.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"cannot ask {url} for its models ({error}); check the address (it ends in /v1 mostly)"
            f" and {KEY_VARIABLE}, or give {option}"
        ) from None


def authorization() -> dict[str, str]:
    """The header with the key of the environment, if there is one."""
    key = os.environ.get(KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}


def wait_for(attempt: int, asked_for: float) -> float:
    """Seconds before the attempt of that number (1 is the second): between half and all of a delay that
    doubles, but no less than the endpoint asked for.
    """
    delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1))
    return max(min(asked_for, LONGEST_DELAY), delay * random.uniform(0.5, 1.0))


def _timeout(config: DistillConfig) -> httpx.Timeout:
    return httpx.Timeout(config.request_timeout, connect=min(10.0, config.request_timeout), pool=None)


def _check(status: int, fault: str, url: str) -> None:
    """Raise where another attempt would end the same way."""
    if status in _REFUSED:
        raise Refused(fault)
    if status in (401, 403):
        raise UserError(f"{url} refuses the key ({fault}); set the environment variable {KEY_VARIABLE}")
    if status < 500 and status not in _PASSING:
        raise UserError(f"{url} answers {fault}; check the address (it ends in /v1 mostly) and the model")


def _completion(body: Any) -> Completion:
    choice = body["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    reason = choice.get("finish_reason") or "stop"
    if reason not in ("stop", "length"):
        raise Refused(f"finish_reason {reason}")
    if not isinstance(text, str) or not text.strip():
        raise Refused("an empty answer")
    return Completion(text, reason)


def _reason(response: httpx.Response) -> str:
    """The first 200 characters of what the endpoint says, in one line."""
    return " ".join(response.text.split())[:200]


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the endpoint asks to wait, which it may say as a date (RFC 9110, section 10.2.3)."""
    said = response.headers.get("retry-after", "0")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return 0.0
    return seconds if seconds > 0 and math.isfinite(seconds) else 0.0
