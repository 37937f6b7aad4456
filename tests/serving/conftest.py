"""A server on a free port with a tiny model's tokenizer and no model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from openai import OpenAI

from medusa_decoding.models import Tokenizer
from medusa_decoding.serving.app import create_app
from medusa_decoding.serving.config import ServeConfig
from medusa_decoding.serving.metrics import Metrics
from medusa_decoding.serving.process import address, listen, server_of
from medusa_decoding.serving.served import Served
from tests.serving.fake_jobs import FakeJobs
from tests.tiny import VOCABULARY_SIZE, tiny_tokenizer

TOOL_TEMPLATE = (
    '{% if tools %}<|im_start|>system\nCall as <tool_call>{"name": ..., "arguments": ...}</tool_call>:'
    "{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 1024


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    jobs: FakeJobs
    served: Served
    metrics: Metrics

    def openai(self, key: str = "unused") -> OpenAI:
        """The official client."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def http(self, key: str | None = None) -> httpx.Client:
        """A plain client."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False)


@contextmanager
def running(config: ServeConfig, template: str | None = TOOL_TEMPLATE) -> Iterator[Server]:
    """A server in a thread; it is stopped as SIGTERM would."""
    tokenizer = Tokenizer(tiny_tokenizer(template))
    metrics = Metrics()
    jobs = FakeJobs(tokenizer, metrics)
    served = Served("tiny", tokenizer, VOCABULARY_SIZE, CONTEXT, heads=2, lookup=True)
    app = create_app(served, jobs, metrics, config)
    ready = threading.Event()
    with listen(config) as listener:
        server = server_of(app, config, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert ready.wait(30)
        yield Server(address(listener), jobs, served, metrics)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    with running(ServeConfig(port=0, max_body=100_000, max_queue=16)) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.jobs.reset()
    return shared_server


@pytest.fixture
def client(server: Server) -> OpenAI:
    return server.openai()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client
