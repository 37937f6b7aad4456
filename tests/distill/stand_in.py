"""A stand-in for an OpenAI-compatible server, with the faults of real ones."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """Answers each message with its letters turned round.

    faults: for a prompt's last message, what happens to its requests one after the other: a status, "hang"
    (no answer within the time), "close" (the connection ends), "reset" (it breaks), "cut" (half an answer),
    "garbage", or a finish_reason; then all is well. always: the same for every request. retry_after: what 429
    and 503 ask for. delays: seconds before an answer, by last message.
    """

    def __init__(self) -> None:
        self.url = ""
        self.models = ["tiny"]
        self.faults: dict[str, list[int | str]] = {}
        self.always: int | str | None = None
        self.delays: dict[str, float] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.retry_after = "0"
        self.running = self.most = 0
        self.lock = threading.Lock()

    def said(self) -> list[str]:
        """Last message of each request, in the order of arrival."""
        return [last_message(body) for body in self.requests]


def last_message(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self._send(200, {"data": [{"id": name} for name in server.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = last_message(body)
            with server.lock:
                server.requests.append(body)
                server.headers.append(self.headers)
                server.running += 1
                server.most = max(server.most, server.running)
                left = server.faults.get(text, [])
                fault = server.always or (left.pop(0) if left else None)
            time.sleep(server.delays.get(text, 0.0))
            try:
                self._answer(text, fault, chat=self.path == "/v1/chat/completions")
            finally:
                with server.lock:
                    server.running -= 1

        def _answer(self, text: str, fault: int | str | None, *, chat: bool) -> None:
            if isinstance(fault, int):
                self._send(fault, {"error": {"message": f"no {text}"}})
            elif fault == "hang":
                time.sleep(1.0)
            elif fault == "close":
                self.connection.close()
            elif fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            elif fault == "cut":
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
            elif fault == "garbage":
                self._send(200, {"choices": []})
            else:
                said = {"message": {"content": text[::-1]}} if chat else {"text": text[::-1]}
                self._send(200, {"choices": [{**said, "finish_reason": fault or "stop"}]})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            if status in (429, 503):
                self.send_header("retry-after", server.retry_after)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[StandIn]:
    """The server while it runs."""
    stand_in = StandIn()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(stand_in)) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        stand_in.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
