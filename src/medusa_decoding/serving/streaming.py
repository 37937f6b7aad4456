"""Server-sent events, and what happens when their reader leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medusa_decoding.serving.jobs import Event, Ticket

Result = TypeVar("Result")


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class EventStream(Response):
    """Sends JSON objects as server-sent events while they come.

    When the client leaves, `events` is closed, wherever it waits: in the queue, in a prompt, between tokens.
    `done` is called in the end, whatever that was, even if the client left before the first event.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any], None], done: Callable[[], None]) -> None:
        # Proxies are not to collect what is meant to be seen at once.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._done = events, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or until the client leaves."""
        try:
            with suppress(ClientLeft):
                await while_connected(receive, self._write(send))
        finally:
            self._done()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            async for event in events:
                await send(_body(f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"))
        await send(_body("data: [DONE]\n\n", more=False))


def _body(text: str, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": more}


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves; then raises ClientLeft."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_Brought = tuple[int, Event | Exception | None]


async def merged(tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, list[Event]], None]:
    """The events of all tickets as they come, each time those of one that are there, with its place.

    A step brings several tokens, and they go into one chunk. Raises what a ticket raises.
    """
    queue: asyncio.Queue[_Brought] = asyncio.Queue()
    tasks = [asyncio.ensure_future(_forward(place, ticket, queue)) for place, ticket in enumerate(tickets)]
    running = len(tasks)
    try:
        while running:
            for place, group in groupby(await _all_of(queue), itemgetter(0)):
                found = [one for _, one in group]
                if events := [one for one in found if one is not None and not isinstance(one, Exception)]:
                    yield place, events
                if isinstance(found[-1], Exception):
                    raise found[-1]
                running -= found[-1] is None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _all_of(queue: asyncio.Queue[_Brought]) -> list[_Brought]:
    """What is in the queue, at least one."""
    found = [await queue.get()]
    while not queue.empty():
        found.append(queue.get_nowait())
    return found


async def _forward(place: int, ticket: Ticket, queue: asyncio.Queue[_Brought]) -> None:
    try:
        async for event in ticket:
            queue.put_nowait((place, event))
    except Exception as error:
        queue.put_nowait((place, error))
    else:
        queue.put_nowait((place, None))
