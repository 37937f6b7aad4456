from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.distill.answers import append_records
from medusa_decoding.errors import UserError
from medusa_decoding.heads import from_pretrained
from medusa_decoding.training import Recipe, TrainingConfig, follow, train
from medusa_decoding.training.processes import Processes, complains_first, is_main_process, joined
from tests.tiny import tiny_llama

SETTINGS: dict[str, dict[str, Any]] = {
    # Passes of 20 positions in one process, of 20 and 10 in each of two; a patience needs the same figures.
    "ce": {"batch_tokens": 20, "accumulate": 3, "patience": 3},
    # One span of neighbours in a step: the second process has none.
    "kl": {"loss": "kl", "batch_tokens": 16, "projection": "own"},
    "resumed": {"batch_tokens": 33, "checkpoint_seconds": 1e-9},
}
SCRIPT = """
import json, os, sys
from pathlib import Path
from medusa_decoding.training import TrainingConfig, hidden, train

folder, rank, written = Path(sys.argv[1]), int(os.environ["RANK"]), []

def look(event, arguments):
    changes = event in ("os.rename", "os.mkdir", "os.remove") or (event == "open" and arguments[2] & 3)
    if changes and str(arguments[0]).startswith(str(folder / "two")):
        written.append(f"{event} {arguments[0]}")

def stop(step, loss):
    losses.append(loss)
    if step == 4:
        raise InterruptedError

sys.addaudithook(look)
if rank:
    hidden._computed = None
found = {}
for name, settings in json.loads((folder / "settings.json").read_text()).items():
    losses, config = [], TrainingConfig.of(**settings)
    if name == "resumed":
        try:
            train(config, progress=True, on_step=stop)
        except InterruptedError:
            pass
    report = train(config, progress=True, on_step=lambda step, loss: losses.append(loss))
    found[name] = {"losses": losses, "history": report.history, "calibration": report.calibration,
        "finished": report.finished, "written": written}
(folder / f"found-{rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


def settings_of(model: Path, folder: Path, **fields: Any) -> dict[str, Any]:
    """Of a training on a text that repeats four tokens; the data in `folder`, the heads in `folder`/heads."""
    data = folder / "answers.jsonl"
    folder.mkdir(parents=True)
    append_records(
        data,
        (
            {"id": number, "prompt_ids": [number, 3], "answer_ids": ([10, 20, 30, 40] * 4)[number % 4 :][:11]}
            for number in range(30)
        ),
    )
    return {
        "model": str(model), "data": str(data), "out": str(folder / "heads"), "num_heads": 3,
        "draft_vocabulary": 8, "epochs": 3, "learning_rate": 0.02, "validation_fraction": 0.1,
        "compute_dtype": "float32", "device": "cpu", **fields,
    }  # fmt: skip


def test_two_processes_train_as_one_does(model: Path, tmp_path: Path) -> None:
    """Losses, figures and heads; what only the main process does; a run that is resumed."""
    two = {name: settings_of(model, tmp_path / "two" / name, **own) for name, own in SETTINGS.items()}
    (tmp_path / "settings.json").write_text(json.dumps(two))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [
        "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
        f"--main_process_port={free_port()}", "--mixed_precision=no", "--dynamo_backend=no",
    ]  # fmt: skip
    command = [sys.executable, "-m", *launch, str(script), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("epoch 3: loss") == len(SETTINGS)
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0]["ce"]["written"] and not found[1]["ce"]["written"]
    for name, own in SETTINGS.items():
        losses: list[float] = []
        config = TrainingConfig.of(**settings_of(model, tmp_path / "one" / name, **own))
        report = train(config, progress=False, on_step=lambda _, loss, losses=losses: losses.append(loss))
        for each in found:
            assert each[name]["losses"] == pytest.approx(losses, rel=1e-5)
            assert each[name]["finished"] and each[name]["calibration"]
            assert each[name]["history"] == found[0][name]["history"]
        assert found[0][name]["history"][-1]["top1"] == report.history[-1]["top1"]
        one, other = (from_pretrained(out).state_dict() for out in (config.out, Path(two[name]["out"])))
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-3)
    record = json.loads((Path(two["ce"]["out"]) / "training.json").read_text())
    assert record["machine"]["processes"] == 2
    assert "in each of 2 processes" in (Path(two["ce"]["out"]) / "README.md").read_text()


FAILING = """
import os, signal, sys
from medusa_decoding.cli.main import run
from medusa_decoding.errors import UserError
from medusa_decoding.training.trainer import Trainer

advance = Trainer.advance

def fail(trainer):
    if trainer.step == 2 and sys.argv[1] == "error":
        raise UserError("the disk is full; make room")
    if trainer.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(trainer)

if os.environ["RANK"] == "1":
    Trainer.advance = fail
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("kind", "codes", "line"),
    [
        ("error", [2, 2], "medusa: error: the disk is full; make room"),
        ("kill", [2, -signal.SIGKILL], "medusa: error: another process of this training has ended;"),
    ],
)
def test_one_process_that_fails_ends_both_with_one_line(
    model: Path, tmp_path: Path, kind: str, codes: list[int], line: str
) -> None:
    settings = settings_of(model, tmp_path / "two")
    given = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if name != "model"]
    arguments = [sys.executable, "-c", FAILING, kind, "train", str(model), *given]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        subprocess.Popen(
            arguments,
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [one.communicate() for one in both]
    assert [one.returncode for one in both] == codes
    assert [output for output, _ in said] == ["", ""]
    lines = [one for _, errors in said for one in errors.splitlines() if "error" in one]
    assert len(lines) == 1 and lines[0].startswith(line)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_are_the_whole_in_nearly_equal_parts(spans: int, count: int) -> None:
    whole = torch.arange(spans)
    shares = [Processes("cpu", index, count).share(whole) for index in range(count)]
    assert torch.equal(torch.cat(shares), whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_single_process_needs_no_others() -> None:
    with joined("cpu") as alone, alone.main_first():
        assert (alone.device, alone.count, alone.is_main) == ("cpu", 1, True)
        assert alone.on_main(lambda: 7) == 7
        values = torch.ones(3)
        assert alone.add_up(values) is alone.share(values) is values
    assert is_main_process() and complains_first()


def test_what_needs_one_process_is_refused_in_several(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = TrainingConfig.of(**settings_of(model, tmp_path / "both", method="medusa2"))
    with pytest.raises(UserError, match="Medusa-2 runs in one process; start it without a launcher"):
        train(config, progress=False)
    distill = {"prompts": tmp_path / "prompts.txt"}
    with pytest.raises(UserError, match="a recipe runs in one process"):
        follow(Recipe.of(model=str(model), out=tmp_path / "all", distill=distill, train={}), progress=False)
    with pytest.raises(UserError, match="several processes cannot share cuda:1"), joined("cuda:1"):
        pass
    assert not list(tmp_path.rglob("heads"))
