"""A stand-in for a streaming OpenAI-compatible server, with this project's extensions or without them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Token = tuple[str, int]
"""Text and source: 0 the base model, h head h, -1 prompt lookup."""
Reply = Iterable[Json | threading.Event]
WRONG = "wrong"


@dataclass
class StreamingStandIn:
    """Answers a request with what `reply` makes of its body: chunks, each sent as one event.

    An event among the chunks holds them up until it is set. A reply that ends without `DONE` breaks off. A
    status instead of a reply refuses. page: the file at `/`. requests: bodies, in the order of arrival.
    """

    reply: Callable[[Json], Reply | int]
    page: Path | None = None
    models: list[str] = field(default_factory=lambda: ["tiny"])
    key: str | None = None
    url: str = ""
    requests: list[Json] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    left: int = 0
    running: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


DONE: Json = {"done": True}


def medusa_reply(
    steps: Sequence[Sequence[Token]], *, rate: float = 240.0, reason: str = "stop"
) -> list[Json]:
    """The chunks of an answer; its first step is the prompt's one token.

    Each later step's tree holds its tokens and, below the root, one wrong guess of head 1.
    """
    chunks = [_chunk({"role": "assistant", "content": ""})]
    root = ""
    for number, step in enumerate(steps):
        if number:
            chunks.append(_chunk({}, {"tree": _tree(root, step)}))
        tokens = [{"id": _id(text), "text": text, "source": source} for text, source in step]
        chunks.append(_chunk({"content": "".join(text for text, _ in step)}, {"tokens": tokens}))
        root = step[-1][0]
    emitted = [token for step in steps[1:] for token in step]
    sources = [source for _, source in emitted if source]
    figures = {
        "acceleration_rate": len(emitted) / max(len(steps) - 1, 1),
        "steps": len(steps) - 1,
        "tokens": len(emitted),
        "accepted_per_source": {
            ("lookup" if one < 0 else str(one)): sources.count(one) for one in sorted(set(sources))
        },
        "tokens_per_second": rate,
    }
    last = _chunk({}, figures)
    last["choices"][0]["finish_reason"] = reason
    usage = {"prompt_tokens": 5, "completion_tokens": len(emitted) + 1, "total_tokens": len(emitted) + 6}
    return [*chunks, last, {"choices": [], "usage": usage}, DONE]


def plain_reply(pieces: Sequence[str]) -> list[Json]:
    """The chunks of an answer of a server that knows nothing of speculation: one token each."""
    last = _chunk({})
    last["choices"][0]["finish_reason"] = "length"
    usage = {"prompt_tokens": 5, "completion_tokens": len(pieces), "total_tokens": len(pieces) + 5}
    return [*(_chunk({"content": piece}) for piece in pieces), last, {"choices": [], "usage": usage}, DONE]


def one_by_one(steps: Sequence[Sequence[Token]]) -> list[list[Token]]:
    """The same text written without guesses."""
    return [[(text, 0)] for step in steps for text, _ in step]


@contextmanager
def serving(
    reply: Callable[[Json], Reply | int], page: Path | None = None, key: str | None = None
) -> Iterator[StreamingStandIn]:
    """The server while it runs."""
    stand_in = StreamingStandIn(reply, page, key=key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(stand_in)) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        stand_in.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()


def _id(text: str) -> int:
    return int.from_bytes(text.encode()[:6], "big")


def _chunk(delta: Json, medusa: Json | None = None) -> Json:
    chunk: Json = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "tiny",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return chunk if medusa is None else {**chunk, "medusa": medusa}


def _tree(root: str, step: Sequence[Token]) -> Json:
    guessed = [(text, source) for text, source in step if source]
    path = list(range(len(guessed) + 1))
    return {
        "tokens": [root, *(text for text, _ in guessed), WRONG],
        "parents": [-1, *path[:-1], 0],
        "probabilities": [1.0, *(0.5**depth for depth in path[1:]), 0.25],
        "sources": [0, *(source for _, source in guessed), 1],
        "path": path,
    }


def _handler(server: StreamingStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            if self.path == "/" and server.page is not None:
                self._send(200, server.page.read_bytes(), "text/html; charset=utf-8")
            elif self.path == "/v1/models" and self._may():
                self._json(200, {"data": [{"id": name} for name in server.models]})
            elif self.path != "/v1/models":
                self._json(404, {"error": {"message": "no such page"}})

        def do_POST(self) -> None:
            server.paths.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not self._may():
                return
            with server.lock:
                server.requests.append(body)
                server.running += 1
                server.most = max(server.most, server.running)
            try:
                reply = server.reply(body)
                if isinstance(reply, int):
                    self._json(reply, {"error": {"message": f"refused with {reply}"}})
                else:
                    self._stream(reply)
            finally:
                with server.lock:
                    server.running -= 1

        def _may(self) -> bool:
            allowed = server.key is None or self.headers["authorization"] == f"Bearer {server.key}"
            if not allowed:
                self._json(401, {"error": {"message": "no key"}})
            return allowed

        def _stream(self, reply: Reply) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            try:
                for chunk in reply:
                    self._event(chunk)
            except (BrokenPipeError, ConnectionResetError):
                server.left += 1

        def _event(self, chunk: Json | threading.Event) -> None:
            if isinstance(chunk, threading.Event):
                # Empty comments show whether the reader is still there.
                while not chunk.wait(0.02):
                    self.wfile.write(b": \n\n")
                return
            data = "[DONE]" if chunk is DONE else json.dumps(chunk)
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()

        def _json(self, status: int, body: Json) -> None:
            self._send(status, json.dumps(body).encode(), "application/json")

        def _send(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            if status == 429:
                self.send_header("retry-after", "7")
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
