from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.cli import distill, train
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.training.config import TrainingConfig
from tests.cli.conftest import Command

TRAIN = ("--num-heads", 2, "--epochs", 1, "--batch-tokens", 64, "--validation-fraction", 0.25)


@pytest.fixture
def answers(medusa: Command, model: Path, tmp_path: Path) -> Path:
    """Answers of the tiny model to four prompts."""
    prompts, out = tmp_path / "prompts.txt", tmp_path / "answers.jsonl"
    prompts.write_text("One\nTwo\nThree\nFour\n")
    ended = medusa("distill", model, "--prompts", prompts, "--out", out, "--max-tokens", 12)
    assert (ended.status, ended.output) == (0, f"{out}\n")
    assert "4 answers" in ended.error
    return out


def test_heads_are_trained_on_the_models_own_answers_and_then_used(
    medusa: Command, model: Path, answers: Path, tmp_path: Path
) -> None:
    assert len(answers.read_text().splitlines()) == 4
    heads = tmp_path / "heads"
    ended = medusa("train", model, "--data", answers, "--out", heads, *TRAIN)
    assert (ended.status, ended.output) == (0, f"{heads}\n")
    assert "held-out top-1" in ended.error
    used = medusa("generate", model, "-p", "One", "--heads", heads, "--max-tokens", 5, "--json")
    assert json.loads(used.output)["heads"] == str(heads)


def test_a_file_of_settings_is_used_and_flags_win(
    medusa: Command, model: Path, answers: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {model}\ndata: {answers}\nout: {tmp_path / 'heads'}\nnum_heads: 3\nepochs: 1\nwarmup: 0.5\n"
    )
    assert medusa("train", "--config", recipe, "--num-heads", 1).status == 0
    written = json.loads((tmp_path / "heads" / "training.json").read_text())["recipe"]
    assert (written["num_heads"], written["warmup"]) == (1, 0.5)


def test_every_setting_has_a_help_text_and_no_help_is_left_over() -> None:
    assert distill.HELPS.keys() == DistillConfig.model_fields.keys()
    assert train.HELPS.keys() == TrainingConfig.model_fields.keys()


def test_dry_run_needs_neither_data_nor_model(medusa: Command) -> None:
    ended = medusa("train", "llama-3.1-8b", "--dry-run", "--gpu", "h100", "--answer-tokens", 10_000_000)
    assert ended.status == 0 and ended.error == ""
    assert "8.03 G parameters" in ended.output and "GPU-hours" in ended.output
    refused = medusa("train", "llama-3.1-8b", "--dry-run", "--gpu", "h100")
    assert refused.status == 2 and "--answer-tokens" in refused.error


def test_base_and_heads_are_trained_together_and_then_used(
    medusa: Command, model: Path, answers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    ended = medusa("train", model, "--data", answers, "--out", out, *TRAIN, "--method", "medusa2", "--merge")
    assert (ended.status, ended.output) == (0, f"{out}\n")
    used = medusa("generate", out / "base", "-p", "One", "--heads", out, "--max-tokens", 5, "--json")
    assert used.status == 0 and "other weights" not in used.error
    both = ("--adapter", out / "adapter", "--heads", out)
    adapted = medusa("generate", model, *both, "-p", "One", "--max-tokens", 5, "--json")
    assert adapted.status == 0 and "other weights" not in adapted.error
    assert json.loads(adapted.output)["text"] == json.loads(used.output)["text"]
