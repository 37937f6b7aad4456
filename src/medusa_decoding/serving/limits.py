"""What stands before every request: the size of its body, the key, and that no fault gets out.

Plain ASGI: Starlette's base class for middleware would hide from a handler that its client left.
"""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medusa_decoding.serving.errors import ApiError, error_response

OPEN_PATHS = ("/health",)


class ApiKey:
    """Refuses requests without the key, as `Authorization: Bearer KEY` or, from a browser, as a password."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass that has the key or needs none."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        response = error_response(
            ApiError(
                401,
                "the API key is missing or wrong: send 'Authorization: Bearer KEY'",
                code="invalid_api_key",
            )
        )
        # A browser then asks for the key, and sends it with what the page requests, too.
        # In a header of its own: Chromium takes no header that names two schemes.
        response.headers["WWW-Authenticate"] = 'Basic realm="API key as password"'
        response.headers.append("WWW-Authenticate", "Bearer")
        await response(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        given = _key_of(headers.get("authorization", ""))
        # Digests have one length, so that the time tells nothing of the key's.
        return hmac.compare_digest(sha256(given).digest(), self._digest)


def _key_of(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return value.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""


class BodyLimit:
    """Refuses bodies above `most` bytes, announced or not."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass whose body fits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > self._most:
            await self._refusal()(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            await self._refusal()(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self) -> ASGIApp:
        return error_response(
            ApiError(413, f"the body has more than {self._most} bytes", code="body_too_large")
        )

    async def _read(self, receive: Receive) -> Message | None:
        """The whole body as one message; None if it is too large."""
        parts, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most:
                return None
            more = message.get("more_body", False)
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}


def _replay(first: Message, receive: Receive) -> Receive:
    """`first`, then whatever still comes."""
    waiting = [first]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


class LastResort:
    """Answers faults that nobody foresaw, so that no trace reaches the client or the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass; answer for it where it fails."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            response = error_response(error)
            if scope["type"] == "http" and not begun:
                await response(scope, receive, send)
