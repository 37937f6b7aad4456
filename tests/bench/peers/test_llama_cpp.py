from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medusa_decoding.bench.peers.llama_cpp_peer import (
    SERVER_WORKER,
    LlamaCpp,
    LlamaCppSide,
    quantisation_of,
)
from medusa_decoding.bench.peers.side import PeerFailed, PeerMissing, Prompt
from medusa_decoding.models import resolve
from tests.bench.peers.fake_llama.llama_cpp.llama_cpp import rule

PROMPT = Prompt("", [3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
HERE = LlamaCpp(sys.executable, threads=1, context=200, patience=60.0)


def text_after(ids: list[int], count: int) -> list[int]:
    tokens = list(ids)
    for _ in range(count):
        tokens.append(int(rule(tokens).argmax()))
    return tokens[len(ids) :]


@pytest.fixture
def side(fake_llama: Path, tiny_gguf: Path) -> Iterator[LlamaCppSide]:
    found = HERE.open(tiny_gguf, "llama.cpp", "llama.cpp", "Q4_1")
    yield found
    found.close()


def test_it_writes_the_models_own_text(side: LlamaCppSide) -> None:
    for count in (2, 40, 3):
        written = side.write(PROMPT, count)
        assert written.tokens == text_after(PROMPT.ids, count)
        assert (written.count, written.steps) == (count - 1, count - 1)
        assert written.seconds > 0 < written.prefill_seconds
    assert side.about.versions == {"llama-cpp-python": "9.8.7"}


@pytest.mark.parametrize("looked_up", [1, 2, 10])
def test_lookup_changes_no_token(fake_llama: Path, tiny_gguf: Path, looked_up: int) -> None:
    side = HERE.open(tiny_gguf, "llama.cpp-lookup", "llama.cpp-lookup", "Q4_1", looked_up)
    for count in (2, 60, 61, 62, 63):
        written = side.write(PROMPT, count)
        assert written.tokens == text_after(PROMPT.ids, count)
        assert written.count == count - 1
    assert written.steps is not None and written.steps < written.count
    side.close()


def test_lookup_has_two_sides(fake_llama: Path, tiny_gguf: Path) -> None:
    drafter, server = HERE.lookup(resolve(str(tiny_gguf)))
    assert (drafter.about.name, server.about.name) == ("llama.cpp-lookup", "llama.cpp-lookup server")
    assert "llama-cpp-python's drafter" in drafter.about.description
    assert "its own server's n-gram speculation" in server.about.description
    assert server.about.versions == {"xllamacpp": "1.2.3"}
    assert server.about.weights_key == drafter.about.weights_key
    written = server.write(PROMPT, 9)
    # The server's times: the first token comes out of the prompt, half of the others were guessed.
    assert (written.count, written.steps, written.tokens) == (8, 4, None)
    assert (written.seconds, written.prefill_seconds) == (0.09, 0.05)
    assert server.write(PROMPT, 2).steps == 1
    drafter.close()
    server.close()


def test_a_server_that_crashes_over_repacked_weights_runs_without(
    fake_llama: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LLAMA", "crashes repacked")
    side = HERE.open(tiny_gguf, "a", "a", "Q4_1", worker=SERVER_WORKER)
    assert "without repacked weights, with which it crashed" in side.about.description
    side.close()


def test_it_reads_a_text(side: LlamaCppSide) -> None:
    ids = [int(one) for one in np.random.default_rng(0).integers(17, size=150)]
    expected = 0.0
    for place in range(1, len(ids)):
        logits = rule(ids[:place])
        expected += logits[ids[place]] - math.log(np.exp(logits).sum())
    assert side.log_likelihood(ids) == pytest.approx(expected, rel=1e-5)


def test_the_sides_are_the_file_and_what_is_made_of_it_once(fake_llama: Path, tiny_gguf: Path) -> None:
    sides = list(HERE.sides(resolve(str(tiny_gguf))))
    assert [side.about.name for side in sides] == ["llama.cpp", "llama.cpp Q8_0", "llama.cpp Q4_0"]
    assert [side.about.weights for side in sides] == ["Q4_1", "Q8_0", "Q4_0"]
    made = sorted((fake_llama / "requantised").iterdir())
    assert [path.read_text() for path in made] == ["2 of tiny.gguf", "7 of tiny.gguf"]
    made[0].write_text("kept")
    assert HERE.requantised(tiny_gguf, "Q4_0").read_text() == "kept"
    for side in sides:
        side.close()


def test_a_file_that_cannot_be_requantised_leaves_nothing(
    fake_llama: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LLAMA", "cannot requantise")
    with pytest.raises(PeerFailed, match="could not requantise"):
        HERE.requantised(tiny_gguf, "Q8_0")
    assert not list((fake_llama / "requantised").iterdir())


def test_a_crash_over_repacked_weights_is_gone_round(
    fake_llama: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LLAMA", "crashes repacked")
    side = HERE.open(tiny_gguf, "llama.cpp", "llama.cpp", "Q4_1")
    assert side.about.description == "llama.cpp, tiny.gguf, without repacked weights, with which it crashed"
    assert side.write(PROMPT, 3).tokens == text_after(PROMPT.ids, 3)
    side.close()


def test_death_and_silence_are_told(
    fake_llama: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LLAMA", "dies")
    with pytest.raises(PeerFailed, match="ended with status 3: out of memory"):
        HERE.open(tiny_gguf, "llama.cpp", "llama.cpp", "Q4_1")
    monkeypatch.setenv("FAKE_LLAMA", "hangs")
    with pytest.raises(PeerFailed, match="did not answer within 3 seconds"):
        LlamaCpp(sys.executable, 1, 200, patience=3.0).open(tiny_gguf, "llama.cpp", "llama.cpp", "Q4_1")


def test_without_the_package_the_line_that_installs_it_is_named(tmp_path: Path, tiny_gguf: Path) -> None:
    python = tmp_path / "python"
    # No site-packages: whatever this machine has is not found.
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(PeerMissing, match="not installed") as missing:
        LlamaCpp(str(python), 1, 200).open(tiny_gguf, "llama.cpp", "llama.cpp", "Q4_1")
    assert missing.value.install == f"{python} -m pip install llama-cpp-python"
    with pytest.raises(PeerMissing, match="xllamacpp is not installed") as missing:
        LlamaCpp(str(python), 1, 200).open(tiny_gguf, "a", "a", "Q4_1", worker=SERVER_WORKER)
    assert missing.value.install == f"{python} -m pip install xllamacpp"


def test_what_a_file_calls_its_weights(tiny_gguf: Path, tmp_path: Path) -> None:
    assert quantisation_of(tiny_gguf) == "Q4_1"
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    assert quantisation_of(tmp_path / "no.gguf") == "unknown"
