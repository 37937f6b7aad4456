"""The command line as a function, and a tiny model with heads to use it on."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from medusa_decoding.cli.main import run
from tests.tiny import tiny_heads, tiny_llama


@dataclass(frozen=True)
class Ended:
    """How a command ended. error: what it wrote to stderr."""

    status: int
    output: str
    error: str


Command = Callable[..., Ended]


@pytest.fixture
def medusa(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `medusa` with these arguments, and `stdin` as its input."""

    def command(*arguments: object, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ended(status, said.out, said.err)

    return command


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a context of 256 tokens."""
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random heads that fit it."""
    return tiny_heads(tmp_path_factory.mktemp("heads"))
