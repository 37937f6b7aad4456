"""`medusa serve`: the process, from its address to its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Command
from tests.tiny import tiny_heads, tiny_llama

PROMPT = "Tell me"


@contextmanager
def served(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server's process and a client; the process is killed if the test does not end it."""
    command = [sys.executable, "-c", "from medusa_decoding.cli.main import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, *map(str, arguments), "--port", "0", "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stderr is not None
        greeting = process.stderr.readline()
        url = greeting.partition("the page at ")[2].partition("/,")[0]
        assert url, greeting + process.stderr.read()
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that may write for long."""
    return tiny_llama(tmp_path_factory.mktemp("long"), context_length=4096)


def test_requests_are_answered_and_sigterm_lets_them_end(
    long_model: Path, medusa: Command, tmp_path: Path
) -> None:
    heads = tiny_heads(tmp_path)
    known = medusa(
        "generate", long_model, "--heads", heads, "-p", PROMPT, "--raw", "--json", "--max-tokens", 24
    )
    body = {"prompt": PROMPT, "temperature": 0, "max_tokens": 24}
    with served(long_model, "--heads", heads, "--name", "tiny", MEDUSA_CACHE=str(tmp_path)) as (
        process,
        client,
    ):
        answer = client.post("/v1/completions", json=body).json()
        assert answer["choices"][0]["text"] == json.loads(known.output)["text"]
        plain = client.post("/v1/completions", json={**body, "speculative": "off"}).json()
        assert plain["choices"][0]["text"] == answer["choices"][0]["text"]
        assert plain["medusa"]["acceleration_rate"] == 1
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"

        long = {"prompt": PROMPT, "seed": 1, "max_tokens": 1500, "stream": True, "logit_bias": {"256": -100}}
        with client.stream("POST", "/v1/completions", json=long) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(30) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_key_may_come_from_the_environment(long_model: Path, tmp_path: Path) -> None:
    environment = {"MEDUSA_API_KEY": "k", "MEDUSA_CACHE": str(tmp_path)}
    with served(long_model, "--no-heads", **environment) as (process, client):
        assert client.get("/v1/models").status_code == 401
        answer = client.get("/v1/models", headers={"Authorization": "Bearer k"})
        assert answer.json()["data"][0]["id"] == long_model.name
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_known_before_the_model_is_loaded(medusa: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = medusa("serve", "no-such-model", "--port", port)
    assert ended.status == 2 and ended.error.startswith(
        f"medusa: error: cannot listen on 127.0.0.1 port {port} ("
    )
    assert "choose another --host or --port" in ended.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", 70000], "--port 70000: "),
        (["--max-sequences", 0], "--max-sequences 0: "),
        (["--api-key", ""], "--api-key: "),
        (["--context", 100_000, "--port", 0], "--context 100000 is more than the model's 256 tokens"),
    ],
)
def test_settings_out_of_range_are_named(medusa: Command, model: Path, options: list, said: str) -> None:
    ended = medusa("serve", model, *options)
    assert ended.status == 2 and ended.error.startswith(f"medusa: error: {said}"), ended.error


def test_missing_packages_are_named(medusa: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "medusa_decoding.cli.serve.find_spec", lambda name: None if name == "uvicorn" else name
    )
    ended = medusa("serve", "smollm2")
    assert ended.status == 2
    assert ended.error == "medusa: error: serving needs uvicorn: pip install 'medusa-decoding[serve]'\n"


def test_two_clients_of_the_torch_engine_get_the_same_with_and_without_heads(tmp_path: Path) -> None:
    base, heads = tiny_llama(tmp_path / "base"), tiny_heads(tmp_path / "heads", num_heads=3)
    engine = ("--engine", "torch", "--dtype", "float64")

    def ask(place: int, speculative: str | int) -> tuple[object, int]:
        """A client's text with its end and count of tokens, and how many guesses came true."""
        body = {"prompt": [[30, 31, 32, 30, 31, 32, 30], [70, 12, 70, 12, 70]][place], "max_tokens": 40}
        body |= {"temperature": 0.9 * place, "seed": place, "speculative": speculative}
        answer = client.post("/v1/completions", json=body).json()
        accepted = sum(answer["medusa"]["accepted_per_source"].values())
        return (answer["choices"], answer["usage"]["completion_tokens"]), accepted

    def both(speculative: str | int) -> list[tuple[object, int]]:
        return list(pool.map(ask, range(2), [speculative] * 2))

    with served(base, "--heads", heads, *engine) as (process, client), ThreadPoolExecutor(2) as pool:
        plain, guessed = both("off"), both(8)
        assert [text for text, _ in guessed] == [text for text, _ in plain]
        assert sum(accepted for _, accepted in plain) == 0 < sum(accepted for _, accepted in guessed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
