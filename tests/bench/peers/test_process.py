from __future__ import annotations

import sys

import pytest

from medusa_decoding.bench.peers.process import Died, JsonProcess
from medusa_decoding.bench.peers.side import PeerFailed

READY = "import json, os, sys, time; print('{\"ready\": 1}', flush=True)\n"
ECHO = READY + "for line in sys.stdin: print(json.dumps({'got': json.loads(line)}), flush=True)"


def program(code: str, patience: float = 30.0) -> JsonProcess:
    return JsonProcess([sys.executable, "-c", code], patience)


def test_it_answers() -> None:
    process = program(ECHO)
    assert process.greeting == {"ready": 1}
    assert process.ask({"a": [1]}) == {"got": {"a": [1]}}
    assert process.ask({"b": 2}) == {"got": {"b": 2}}
    process.close()
    process.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('no room')", "it ended with status 1: no room"),
        ("import os; os.kill(os.getpid(), 11)", r"it crashed \(SIGSEGV\)"),
        ("print('hello')", "no JSON object: 'hello"),
        ("print('[1]')", "no JSON object"),
    ],
)
def test_it_does_not_get_ready(code: str, message: str) -> None:
    with pytest.raises(PeerFailed, match=message):
        program(code)


def test_it_cannot_be_run() -> None:
    with pytest.raises(PeerFailed, match=r"/no/python cannot be run \(No such file"):
        JsonProcess(["/no/python"], 1.0)


def test_it_dies_over_a_question() -> None:
    process = program(READY + "sys.stdin.readline(); print('gone', file=sys.stderr); os._exit(7)")
    with pytest.raises(Died, match="status 7: gone"):
        process.ask({})
    process.close()


def test_it_hangs() -> None:
    process = program(READY + "time.sleep(60)", patience=5.0)
    process._patience = 0.05
    with pytest.raises(PeerFailed, match=r"did not answer within 0\.05 seconds"):
        process.ask({})
    assert process._process.returncode is not None
