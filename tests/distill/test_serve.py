"""Answers from this project's own server: the file is the same whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medusa_decoding.distill import DistillConfig, distill
from tests.cli.test_serve import served

DISTILL = (sys.executable, "-c", "from medusa_decoding.cli.main import main; main()", "distill")
CONVERSATION = ["Name a colour.", "Name another one."]


@pytest.mark.real
def test_killed_run_against_a_real_server_writes_the_same_file(smollm2_path: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    asked = [{"prompt": f"Write a line about the number {number}."} for number in range(12)]
    prompts.write_text("".join(json.dumps(one) + "\n" for one in [{"turns": CONVERSATION}, *asked]))
    total = len(asked) + len(CONVERSATION)
    fields = {"model": "smollm2", "prompts": prompts, "max_tokens": 40, "temperature": 0.7}
    with served("smollm2") as (_, client):
        address = str(client.base_url).rstrip("/") + "/v1"
        whole = DistillConfig.of(**fields, out=tmp_path / "whole.jsonl", endpoint=address, concurrency=8)
        report = distill(whole, progress=False)
        assert report.answers + sum(report.dropped.values()) >= total - 1
        out = tmp_path / "answers.jsonl"
        options = {**fields, "out": out, "endpoint": address, "concurrency": 2}
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "model"]
        command = [*DISTILL, "smollm2", *given]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not out.is_file() or not out.stat().st_size:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert 0 < out.read_bytes().count(b"\n") < report.answers
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "were there before" in ended.stderr
    assert out.read_bytes() == whole.out.read_bytes()
