from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_files_may_be_given_several_times(medusa: Command, model: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "banned"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\nboth\n")
    prompts = ("--prompts", tmp_path / "a.txt", "--prompts", tmp_path / "b.txt")
    out = tmp_path / "answers.jsonl"
    ended = medusa(
        "distill", model, *prompts, "--exclude", tmp_path / "banned.txt", "--out", out,
        "--answers", 2, "--temperature", 1, "--max-tokens", 6, "--no-hidden",
    )  # fmt: skip
    assert (ended.status, ended.output) == (0, f"{out}\n")
    assert "2 prompts were excluded" in ended.error
    ids = {json.loads(line)["id"] for line in out.read_text().splitlines()}
    assert ids == {1, "1#2", "b:1", "b:1#2"}


def test_settings_that_contradict_are_one_line(medusa: Command, model: Path, tmp_path: Path) -> None:
    ended = medusa("distill", model, "--out", tmp_path / "o")
    assert (ended.status, ended.error.count("\n")) == (2, 1)
    assert "give --prompts or --self-prompts" in ended.error


@pytest.mark.real
def test_smollm2_writes_prompts_and_answers_them(medusa: Command, smollm2_path: Path, tmp_path: Path) -> None:
    """Finished prompts in plain words, each answered greedily."""
    out = tmp_path / "answers.jsonl"
    command = ("distill", "smollm2", "--self-prompts", 5, "--self-prompt-tokens", 48, "--out", out,
               "--max-tokens", 12, "--batch", 12)  # fmt: skip
    ended = medusa(*command)
    assert ended.status == 0, ended.error
    prompts = [
        json.loads(line) for line in (tmp_path / "answers.self-prompts.jsonl").read_text().splitlines()
    ]
    assert len({record["prompt"] for record in prompts}) == 5
    assert all(len(record["prompt"].split()) > 1 and "<|" not in record["prompt"] for record in prompts)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    dropped = json.loads((tmp_path / "answers.jsonl.config.json").read_text())["counts"]["dropped"]
    assert len(records) + dropped.get("loop", 0) == 5
    assert {record["prompt"] for record in records} <= {record["prompt"] for record in prompts}
    before = out.read_bytes()
    assert medusa(*command).status == 0
    assert out.read_bytes() == before
