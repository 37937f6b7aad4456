"""What goes wrong, in OpenAI's error shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medusa_decoding.serving.faults import note_fault
from medusa_decoding.serving.jobs import Draining, Failed, QueueFull, Unsupported

DRAINING_RETRY_SECONDS = 5
_NAME_OF_TYPE = re.compile(r"(list|dict|literal|constrained|function-\w+)[\[-]")
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is answered with an error: the status, what is wrong and how to mend it.

    param: the field at fault. code: for programs.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The answer's body."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: Exception) -> JSONResponse:
    """The answer to any fault: what the client can mend in full, of others only that they are there."""
    if isinstance(error, ApiError):
        return _response(error.status, error.message, error.param, error.code)
    if isinstance(error, QueueFull):
        message = f"too many requests are waiting: try again in {error.retry_after} s"
        return _response(429, message, code="queue_full", retry_after=error.retry_after)
    if isinstance(error, Draining):
        message = "the server is shutting down"
        return _response(503, message, code="shutting_down", retry_after=DRAINING_RETRY_SECONDS)
    if isinstance(error, Unsupported):
        return _response(400, str(error), code="unsupported_schema")
    if isinstance(error, Failed):
        return _response(500, "the engine failed on this request", code="engine_failed")
    note_fault(error)
    return _response(500, "a fault of the server", code="internal_error")


def install(app: FastAPI) -> None:
    """Answer the faults of `app` in OpenAI's shape."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return error_response(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(invalid_request(error.errors()))

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _response(error.status_code, str(error.detail), headers=error.headers)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    for kind in (ApiError, QueueFull, Draining, Failed):
        app.add_exception_handler(kind, answer)


def invalid_request(faults: Sequence[Mapping[str, Any]]) -> ApiError:
    """The error for what validation found: the fault that lies deepest, for of the alternatives of a field
    that is the one which was meant.
    """
    fault = max(faults, key=lambda one: len(one["loc"]))
    param = _field(fault["loc"][1:])
    if fault["type"].startswith("union_tag"):
        param = f"{param}.{fault['ctx']['discriminator'].strip(chr(39))}"
    if fault["type"] == "extra_forbidden":
        return ApiError(
            400, f"{param} is not supported: leave it out", param=param, code="unsupported_parameter"
        )
    if fault["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    if fault["type"] in ("missing", "union_tag_not_found") and param is not None:
        return ApiError(400, f"{param} is required", param=param, code="missing_required_parameter")
    said = str(fault["msg"]).removeprefix("Value error, ")
    message = f"{param}: {said[:1].lower()}{said[1:]}" if param else said
    return ApiError(400, message, param=param, code="invalid_value")


def _field(place: Sequence[str | int]) -> str | None:
    """The field at fault, `messages.0.content`, without the steps that name one of its types."""
    steps: list[str] = []
    for index, part in enumerate(place):
        before = place[max(index - 2, 0) : index]
        is_kind = part in ("str", "int", "NamedTool", "[key]") or before[-1:] == ("response_format",)
        is_kind |= len(before) == 2 and before[0] == "messages" and isinstance(part, str)
        if not is_kind and not _NAME_OF_TYPE.match(str(part)):
            steps.append(str(part))
    return ".".join(steps)[:200] or None


def _response(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    *,
    retry_after: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    headers = dict(headers or {})
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return JSONResponse(error_body(status, message, param, code), status, headers)
