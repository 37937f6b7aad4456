from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from medusa_decoding.distill import DistillConfig, distill
from medusa_decoding.distill.answers import append_records
from medusa_decoding.errors import UserError
from medusa_decoding.generation import load
from medusa_decoding.heads import from_pretrained
from medusa_decoding.training import TrainingConfig, train
from medusa_decoding.training.checkpoint import CHECKPOINT_FILE, load_checkpoint
from tests.tiny import tiny_llama

PERIOD = [10, 20, 30, 40]
END = 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture
def make_config(model: Path, tmp_path: Path) -> Any:
    """A config for a text that repeats four tokens, begun at another one in each answer."""
    data = tmp_path / "data" / "answers.jsonl"
    data.parent.mkdir()
    append_records(
        data,
        (
            {"id": number, "prompt_ids": [number, 3], "answer_ids": (PERIOD * 4)[number % 4 :][:11]}
            for number in range(30)
        ),
    )
    defaults = {
        "model": str(model), "data": data, "out": tmp_path / "heads", "num_heads": 3, "draft_vocabulary": 8,
        "epochs": 3, "batch_tokens": 32, "learning_rate": 0.02, "validation_fraction": 0.1,
        "compute_dtype": "float32",
    }  # fmt: skip

    def make(**fields: Any) -> TrainingConfig:
        return TrainingConfig.of(**{**defaults, **fields})

    return make


def losses_of(config: TrainingConfig) -> list[tuple[int, float]]:
    losses: list[tuple[int, float]] = []
    train(config, progress=False, on_step=lambda step, loss: losses.append((step, loss)))
    return losses


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(from_pretrained(folder).state_dict())


def assert_same_heads(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_heads_learn_a_periodic_text(make_config: Any, model: Path) -> None:
    config = make_config(epochs=40)
    report = train(config, progress=False)
    figures = report.accuracies
    assert figures["top1"] == [1.0, 1.0, 1.0]
    assert figures["tokens_per_step"] == 4.0
    assert report.calibration[2]["accuracy"] == 1.0
    assert report.data["coverage"] == 1.0
    assert report.finished and report.steps == report.history[-1]["step"]
    medusa = load(str(model), heads=config.out)
    assert medusa.heads is not None and medusa.heads.config.path_calibration is not None
    plain = medusa.generate([1, 3], speculative=False, max_tokens=8)
    assert medusa.generate([1, 3], max_tokens=8).tokens == plain.tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"condition": "none"},
        {"projection": "own", "num_layers": 2},
        {"projection": "own", "num_layers": 0, "condition": "none"},
        {"draft_vocabulary": None},
        {"draft_vocabulary": "auto"},
        {"validation_fraction": 0},
        {"batch_tokens": 100_000},
        {"loss": "kl"},
        {"loss": "kl", "condition": "none"},
        {"loss": "kl", "projection": "own", "draft_vocabulary": None},
        {"loss": "kl", "num_layers": 3, "compute_dtype": "bfloat16"},
        {"num_layers": 2, "compute_dtype": "bfloat16"},
        {"batch_tokens": 16, "accumulate": 3},
        {"compute_dtype": "auto"},
    ],
)
def test_every_kind_of_heads_learns_and_loads(make_config: Any, fields: dict[str, Any]) -> None:
    config = make_config(**{"epochs": 12, **fields})
    losses = losses_of(config)
    assert losses[-1][1] < losses[0][1]
    heads = from_pretrained(config.out)
    assert heads.config.num_layers == config.num_layers
    # The model has fewer than 1,024 tokens, so "auto" takes them all.
    assert (heads.token_map is None) == (config.draft_vocabulary in (None, "auto"))
    assert heads.token_map is None or {*PERIOD, END} <= set(heads.token_map.tolist())


def test_a_chosen_draft_vocabulary_is_recorded_and_said(
    make_config: Any, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes in steps of 6: the end, which comes first, and the four tokens of the text fit in one."""
    monkeypatch.setattr("medusa_decoding.training.data._SIZE_STEP", 6)
    config = make_config(draft_vocabulary="auto", epochs=1)
    report = train(config)
    said = "draft vocabulary of 6 tokens: 100.0% of the held-out tokens, 100.0% of the training tokens"
    assert said in capsys.readouterr().err
    record = json.loads((config.out / "training.json").read_text(encoding="utf-8"))
    assert (record["recipe"]["draft_vocabulary"], record["data"]["draft_vocabulary"]) == ("auto", 6)
    heads = from_pretrained(config.out)
    assert heads.token_map is not None
    assert heads.token_map.tolist() == [0, *PERIOD, END]
    assert "6 tokens" in (config.out / "README.md").read_text(encoding="utf-8")
    assert train(config, progress=False) == report


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"loss": "kl", "compute_dtype": "bfloat16", "num_layers": 2},
        {"accumulate": 2, "batch_tokens": 16, "patience": 3},
    ],
)
def test_resumed_run_equals_the_uninterrupted_one(
    make_config: Any, tmp_path: Path, fields: dict[str, Any]
) -> None:
    whole = losses_of(make_config(out=tmp_path / "whole", **fields))
    config = make_config(checkpoint_seconds=1e-9, **fields)
    early: list[tuple[int, float]] = []

    def stop(step: int, loss: float) -> None:
        early.append((step, loss))
        if step in (3, len(whole) - 2):
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            train(config, progress=False, on_step=stop)
    late = losses_of(config)
    assert early + late == whole
    assert_same_heads(config.out, tmp_path / "whole")
    one, other = (json.loads((out / "training.json").read_text()) for out in (config.out, tmp_path / "whole"))
    assert one["history"] == other["history"] and one["calibration"] == other["calibration"]
    assert not (config.out / CHECKPOINT_FILE).exists()


def test_passes_of_a_step_add_up_to_one_large_pass(make_config: Any, tmp_path: Path) -> None:
    once = losses_of(make_config(out=tmp_path / "once", batch_tokens=60))
    thrice = losses_of(make_config(out=tmp_path / "thrice", batch_tokens=20, accumulate=3))
    assert len(once) == len(thrice)
    assert [loss for _, loss in thrice] == pytest.approx([loss for _, loss in once], rel=1e-4)


def test_training_stops_when_the_held_out_loss_does_not_fall_and_keeps_the_best_heads(
    make_config: Any, tmp_path: Path
) -> None:
    """A rate that is far too high: the best epoch is followed by worse ones."""
    fields = {"epochs": 30, "learning_rate": 3.0, "warmup": 1.0, "patience": 2}
    config = make_config(**fields, out=tmp_path / "stopped")
    report = train(config, progress=False)
    losses = [figures["held_out_loss"] for figures in report.history]
    assert len(losses) < 30
    assert report.kept_epoch == losses.index(min(losses)) + 1 == len(losses) - 2
    assert report.accuracies == report.history[report.kept_epoch - 1]
    assert f"those of epoch {report.kept_epoch}" in (config.out / "README.md").read_text(encoding="utf-8")
    # The same run, stopped by a kill at the best epoch's end, has the heads that were kept.
    other = make_config(**fields, out=tmp_path / "killed")
    last = report.history[report.kept_epoch - 1]["step"]

    def stop(step: int, loss: float) -> None:
        if step == last:
            raise Stopped

    with pytest.raises(Stopped):
        train(other, progress=False, on_step=stop)
    saved = load_checkpoint(other.out)
    assert saved is not None and saved.best is not None
    kept = from_pretrained(config.out).state_dict()
    for name, tensor in saved.best.items():
        assert torch.equal(kept[name], tensor.half().float())


def test_kl_is_held_out_too_and_falls(make_config: Any) -> None:
    report = train(make_config(loss="kl", epochs=20), progress=False)
    assert report.history[-1]["held_out_loss"] < 0.9 * report.history[0]["held_out_loss"]
    divergences = report.accuracies["validation_kl"]
    weighted = sum(0.8**head * one for head, one in enumerate(divergences, 1))
    assert report.accuracies["held_out_loss"] == pytest.approx(weighted)


def test_killed_run_goes_on_from_its_last_checkpoint(make_config: Any, tmp_path: Path) -> None:
    train(make_config(out=tmp_path / "whole"), progress=False)
    config = make_config(checkpoint_seconds=1e-9)
    script = f"""
import os, signal
from medusa_decoding.training import TrainingConfig, train
def die(step, loss):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train(TrainingConfig.model_validate_json({config.model_dump_json()!r}), progress=False, on_step=die)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    saved = load_checkpoint(config.out)
    assert saved is not None and saved.step == 5
    assert losses_of(config)[0][0] == 6
    assert_same_heads(config.out, tmp_path / "whole")


def test_interrupted_run_saves_where_it_is(make_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(checkpoint_seconds=1e9)

    def interrupt(step: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, progress=True, on_step=interrupt)
    assert "stopped after step 2 of" in capsys.readouterr().err
    assert losses_of(config)[0][0] == 3


def test_finished_run_is_not_repeated(make_config: Any) -> None:
    config = make_config()
    report = train(config, progress=False)
    assert losses_of(config) == []
    assert train(config, progress=False) == report


def test_out_folder_of_another_training_is_refused(make_config: Any) -> None:
    config = make_config()
    train(config, progress=False)
    with pytest.raises(UserError, match="holds a training with epochs 3, not 4"):
        train(make_config(epochs=4), progress=False)
    append_records(config.data[0], [{"id": "new", "prompt_ids": [1], "answer_ids": [2, 3]}])
    with pytest.raises(UserError, match=r"is not what the training in .* began with"):
        train(config, progress=False)
    (config.out / "training.json").unlink()
    with pytest.raises(UserError, match="holds other heads"):
        train(config, progress=False)


def test_damaged_checkpoint_is_named(make_config: Any) -> None:
    config = make_config()
    with pytest.raises(Stopped):
        train(config, progress=False, on_step=_stop_at_once)
    (config.out / CHECKPOINT_FILE).write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged; delete it"):
        train(config, progress=False)


def _stop_at_once(step: int, loss: float) -> None:
    raise Stopped


def test_unusable_data_is_refused(make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        train(make_config(data=tmp_path / "nothing.jsonl"), progress=False)
    short = tmp_path / "short" / "answers.jsonl"
    short.parent.mkdir()
    append_records(short, [{"id": 1, "prompt_ids": [1], "answer_ids": [END]}])
    with pytest.raises(UserError, match="too short to train on"):
        train(make_config(data=short, out=tmp_path / "a"), progress=False)
    foreign = tmp_path / "foreign" / "answers.jsonl"
    foreign.parent.mkdir()
    append_records(foreign, [{"id": 1, "prompt_ids": [1], "answer_ids": [5, 70_000]}])
    with pytest.raises(UserError, match="hold token 70000"):
        train(make_config(data=foreign, out=tmp_path / "b"), progress=False)


def test_answers_of_distill_train_without_running_the_base_again(
    make_config: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\nthree\nfour\n", encoding="utf-8")
    out = tmp_path / "own" / "answers.jsonl"
    distill(DistillConfig.of(model=str(model), prompts=prompts, out=out, max_tokens=12), progress=False)
    monkeypatch.setattr("medusa_decoding.training.hidden._computed", None)
    report = train(make_config(data=out, epochs=2), progress=False)
    # Greedy answers are the base model's own, but for float16's rounding of near-ties.
    assert report.data["base_agreement"] > 0.95


def test_answers_that_are_not_the_models_own_are_warned_of(
    make_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_config(epochs=1), progress=True)
    assert "are they its own?" in capsys.readouterr().err


def test_card_and_record_hold_the_figures(make_config: Any, model: Path) -> None:
    config = make_config()
    report = train(config, progress=False)
    record = json.loads((config.out / "training.json").read_text(encoding="utf-8"))
    assert record["recipe"]["learning_rate"] == config.learning_rate
    assert len(record["history"]) == config.epochs
    assert record["history"][-1]["top1"] == report.accuracies["top1"]
    assert len(record["data"]["sha256"]) == 64
    card = (config.out / "README.md").read_text(encoding="utf-8")
    assert f"| 2 | {report.accuracies['top1'][1]:.3f} |" in card
    assert f"{report.accuracies['tokens_per_step']:.2f} tokens per step" in card
    assert f"# Medusa heads for {model.name}" in card
    assert str(model) not in card


def test_tensorboard_gets_the_losses(make_config: Any) -> None:
    pytest.importorskip("tensorboard")
    config = make_config(epochs=1)
    train(config, progress=False)
    assert [path.name for path in (config.out / "tensorboard").iterdir()]


def test_supervised_data_and_own_answers_are_mixed(make_config: Any, tmp_path: Path) -> None:
    own = make_config().data[0]
    people = tmp_path / "people.parquet"
    rows = [
        {"instruction": f"say {number}", "input": "", "output": f"this is {number}"} for number in range(9)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), people)
    config = make_config(data=[own, people], epochs=1)
    report = train(config, progress=False)
    assert report.data["path"] == "answers.jsonl, people.parquet"
    assert report.data["texts"] + report.data["validation_texts"] == 39
    assert [source["answers"] for source in report.data["sources"]] == [30, 9]
    (folder,) = tmp_path.glob("hidden-people-*")
    assert list(folder.glob("*.safetensors"))
    # A resumed run finds the same data, another one does not.
    assert train(config, progress=False) == report
    with pytest.raises(UserError, match=r"answers\.jsonl, people\.parquet is not what the training"):
        train(make_config(data=own, epochs=1), progress=False)
