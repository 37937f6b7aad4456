"""Fixtures shared by all tests."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.hub.stand_in import StandIn

# For every process that a test starts, too: the port of `discard`, where nobody listens.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Addresses outside this machine that the test asked for: it is refused them, and fails."""
    asked: list[str] = []
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def check(host: object) -> None:
        if not _is_here(host):
            asked.append(str(host))
            raise ConnectionRefusedError(f"no test may reach {host}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            check(address[0])
        connect(self, address)

    def guarded_getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        check(host)
        return getaddrinfo(host, *arguments, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield asked
    assert not asked, f"the test wanted to reach {', '.join(asked)}"


def _is_here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(name))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for the Hub, with an empty cache; `me` is logged in."""
    from huggingface_hub import constants

    from tests.hub.stand_in import serving

    with serving() as stand_in:
        home = tmp_path / "huggingface"
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        for name, value in {
            "ENDPOINT": stand_in.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{stand_in.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "AGENT_HARNESSES_PATH": str(home / "harnesses.json"),
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        yield stand_in


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2-135M-Instruct GGUF, downloaded once into the user's cache."""
    from medusa_decoding.models import resolve

    path = resolve("smollm2").path
    assert path is not None
    return path


@pytest.fixture(scope="session", autouse=True)
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where profiles of tiny models are kept meanwhile, unless a test names a cache of its own."""
    from medusa_decoding.tuning import cache

    folder, original = tmp_path_factory.mktemp("profiles"), cache.profiles_folder
    with pytest.MonkeyPatch.context() as patch:
        chosen = lambda: original() if os.environ.get("MEDUSA_CACHE") else folder  # noqa: E731
        patch.setattr(cache, "profiles_folder", chosen)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def packed_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the CPU engine keeps weights meanwhile: not among the user's."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        # Without a compiler there is no CPU engine, and nothing to keep.
        with suppress(ImportError):
            patch.setattr("medusa_decoding.generation.on_cpu.packed_folder", lambda: folder)
        yield folder
    shutil.rmtree(folder)
