from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medusa_decoding.heads import from_pretrained
from tests.cli.conftest import Command


@pytest.fixture
def recipe(model: Path, tmp_path: Path) -> Path:
    """For the tiny model: five answers of 12 tokens, two heads."""
    (tmp_path / "prompts.txt").write_text("One\nTwo\nThree\nFour\nFive\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {model}\ndistill: {{prompts: {tmp_path}/prompts.txt, max_tokens: 12}}\n"
        "train: {num_heads: 2, epochs: 2, batch_tokens: 16, validation_fraction: 0.25, "
        "compute_dtype: float32, draft_vocabulary: auto}\n"
    )
    return path


# Kills itself where the second half would begin.
KILLED_BETWEEN = """
import os, signal, sys
import medusa_decoding.training.run as run
run.train = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from medusa_decoding.cli.main import main
main()
"""


def test_heads_from_nothing_also_after_a_kill_between_the_halves(
    medusa: Command, recipe: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    ended = medusa("recipe", recipe, "--out", whole)
    assert (ended.status, ended.output) == (0, f"{whole / 'heads'}\n"), ended.error
    assert "5 answers" in ended.error and "held-out top-1" in ended.error
    assert "100.0% of the held-out tokens" in ended.error

    killed = [sys.executable, "-c", KILLED_BETWEEN, "recipe", str(recipe), "--out", str(out)]
    assert subprocess.run(killed, capture_output=True, check=False).returncode == -9
    answers = out / "answers" / "answers.jsonl"
    before = answers.read_bytes()
    assert not (out / "heads").exists()
    ended = medusa("recipe", recipe, "--out", out)
    assert ended.status == 0, ended.error
    assert "0 answers" in ended.error and "5 were there before" in ended.error
    assert answers.read_bytes() == before == (whole / "answers" / "answers.jsonl").read_bytes()
    one, other = (from_pretrained(folder / "heads").state_dict() for folder in (out, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_all_settings_and_checksums_stand_beside_the_heads(
    medusa: Command, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    others = tmp_path / "others.txt"
    others.write_text("Six\nSeven\nEight\n")
    banned = tmp_path / "banned.txt"
    banned.write_text("Seven\n")
    ended = medusa("recipe", recipe, "--out", out, "--prompts", others, "--exclude", banned)
    assert ended.status == 0, ended.error
    assert "2 answers" in ended.error and "1 prompts were excluded" in ended.error
    record = json.loads((out / "heads" / "training.json").read_text())
    answers = hashlib.sha256((out / "answers" / "answers.jsonl").read_bytes()).hexdigest()
    (source,) = record["data"]["sources"]
    assert record["data"]["sha256"] == source["sha256"] == answers
    prompts = [{"path": "others.txt", "sha256": hashlib.sha256(others.read_bytes()).hexdigest()}]
    assert source["distillation"]["prompts"] == prompts
    assert source["distillation"]["counts"]["excluded"] == 1
    assert record["settings"]["weight_decay"] == 0.0 and record["settings"]["data"] == ["answers.jsonl"]
    assert answers in (out / "heads" / "README.md").read_text()
    # The recipe that is kept makes the same heads.
    again = tmp_path / "again"
    assert medusa("recipe", out / "heads" / "recipe.yaml", "--out", again).status == 0
    one, other = (from_pretrained(folder / "heads").state_dict() for folder in (out, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_mistakes_are_one_line_before_anything_is_run(medusa: Command, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe.write_text(recipe.read_text().replace("epochs", "epoch"))
    ended = medusa("recipe", recipe, "--out", out)
    assert (ended.status, ended.error.count("\n")) == (2, 1)
    assert "unknown key 'train.epoch'" in ended.error
    assert "cannot read" in medusa("recipe", tmp_path / "nothing.yaml", "--out", out).error
    assert not out.exists()
