"""The server as a process: its address, its signals."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from medusa_decoding.errors import UserError
from medusa_decoding.serving.config import ServeConfig

if TYPE_CHECKING:
    from fastapi import FastAPI


def listen(config: ServeConfig) -> socket.socket:
    """A socket on the address; taken before a model is loaded, so that a taken port is known at once.

    Raises UserError where it is taken or is none of this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listener = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        way_out = (
            f"cannot listen on {config.host} port {config.port} ({reason}): choose another --host or --port"
        )
        raise UserError(way_out) from None
    # Connections have it from here. asyncio sets it only on sockets that were made with a protocol's number,
    # and without it the second part of an answer waits 40 ms for the client to acknowledge the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address(listener: socket.socket) -> str:
    """The URL of a server on this socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(app: FastAPI, config: ServeConfig, ready: Callable[[], None]) -> uvicorn.Server:
    """What answers requests. ready: called as soon as it does."""
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=config.drain_seconds,
    )
    return _Server(settings, ready)


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self._ready()


@contextmanager
def signals_end_nothing() -> Iterator[None]:
    """uvicorn raises the signals that it obeyed once more when it is done; they have had their effect."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
