"""The commands of docs/scaling.md, as they stand there."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from medusa_decoding.distill.answers import append_records
from tests.cli.conftest import Command
from tests.cli.test_serve import served
from tests.distill.stand_in import serving
from tests.tiny import tiny_heads

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in PAGE.split("```sh\n")[1:] for line in block.partition("```")[0].splitlines() if line
]
SERVE, DISTILL = COMMANDS[:2]
LAUNCHES = [command for command in COMMANDS if command.startswith("accelerate launch")]
(CONVERT,) = (command for command in COMMANDS if command.startswith("medusa convert "))
LLAMA = "meta-llama/Llama-3.1-70B-Instruct"
CONVERSATION = ["Name a colour.", "Name another one."]


def arguments_of(command: str, **places: object) -> list[str]:
    """The command's words behind `medusa`; places: what stands in for a word of the page."""
    words = shlex.split(command)
    words = words[words.index("medusa") + 1 :]
    return [str(places.get(word, word)) for word in words]


def test_every_command_of_the_page_is_known_here() -> None:
    run = [SERVE, DISTILL, *LAUNCHES, CONVERT]
    rest = [one for one in COMMANDS if one not in run and not one.startswith("vllm serve ")]
    assert SERVE.startswith("medusa serve smollm2 ") and DISTILL.startswith("medusa distill smollm2 ")
    assert len(LAUNCHES) == 2
    assert [one.split()[:3] for one in rest] == [
        ["medusa", "distill", LLAMA], ["medusa", "train", "MODEL"], ["medusa", "train", "llama-3.1-8b"],
    ]  # fmt: skip


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """answers.jsonl in the current folder: texts that repeat four tokens."""
    monkeypatch.chdir(tmp_path)
    said = [([10, 20, 30, 40] * 4)[number % 4 :][:11] for number in range(30)]
    append_records(
        tmp_path / "answers.jsonl",
        ({"id": n, "prompt_ids": [n, 3], "answer_ids": ids} for n, ids in enumerate(said)),
    )
    return tmp_path


def test_a_large_model_behind_an_endpoint_answers(
    medusa: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "abc"}\n{"prompt": "def"}\n')
    (command,) = (one for one in COMMANDS if one.startswith(f"medusa distill {LLAMA}"))
    with serving() as server:
        ended = medusa(*arguments_of(command, **{LLAMA: model, "http://127.0.0.1:8000/v1": server.url}))
    assert ended.status == 0, ended.error
    assert [json.loads(line)["answer"] for line in Path("answers.jsonl").read_text().splitlines()] == [
        "cba", "fed",
    ]  # fmt: skip


def test_heads_are_converted_for_vllm(
    medusa: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = medusa(*arguments_of(CONVERT, MODEL=model, heads=tiny_heads(tmp_path / "heads")))
    assert ended.status == 0, ended.error
    assert json.loads(Path("heads-vllm/config.json").read_text())["architectures"] == ["MedusaModel"]


def test_training_costs_are_reckoned(medusa: Command) -> None:
    (command,) = (one for one in COMMANDS if " --dry-run " in one)
    ended = medusa(*arguments_of(command))
    assert ended.status == 0 and "GPU-hours" in ended.output


def test_the_launchers_options_are_accelerates() -> None:
    read = launch_command_parser().parse_args(shlex.split(LAUNCHES[0])[2:])
    assert read.multi_gpu and read.no_python and read.num_processes == 2
    assert [read.training_script, *read.training_script_args] == shlex.split(LAUNCHES[1])[5:]


def test_two_processes_with_settings_for_fsdp_give_the_losses_of_one(
    medusa: Command, model: Path, answers: Path
) -> None:
    """One process as on the page, too: with a device map."""
    settings = ["--device", "cpu", "--epochs", "2", "--num-heads", "2", "--batch-tokens", "64"]
    (alone,) = (one for one in COMMANDS if "--device-map auto" in one)
    ended = medusa(*arguments_of(alone, MODEL=model, heads="one"), *settings)
    assert ended.status == 0, ended.error
    words = shlex.split(LAUNCHES[1])
    assert words[2] == "--config_file"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0",
              "--config_file", str(ROOT / words[3]), *words[4 : words.index("medusa")]]  # fmt: skip
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    given = ["medusa", *arguments_of(LAUNCHES[1], MODEL=model, heads="two"), *settings]
    ran = subprocess.run([*launch, *given], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    one, two = (json.loads((answers / name / "training.json").read_text()) for name in ("one", "two"))
    assert two["machine"]["processes"] == 2
    for figure in ("loss", "held_out_loss"):
        losses = [[epoch[figure] for epoch in record["history"]] for record in (one, two)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.real
def test_killed_run_against_a_real_server_writes_the_same_file(
    medusa: Command, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server and a sampled distillation of it: alone; killed and resumed, with other concurrency."""
    monkeypatch.chdir(tmp_path)
    asked = [{"prompt": f"Write a line about the number {number}."} for number in range(10)]
    lines = [json.dumps(one) + "\n" for one in [{"turns": CONVERSATION}, *asked]]
    Path("prompts.jsonl").write_text("".join(lines))
    # `served` takes a free port.
    assert arguments_of(SERVE)[2:] == ["--port", "8000"]
    with served(arguments_of(SERVE)[1]) as (_, client):
        places = {
            "http://127.0.0.1:8000/v1": str(client.base_url.join("/v1")),
            "prompts.txt": "prompts.jsonl",
        }

        given = [*arguments_of(DISTILL, **places), "--temperature", "0.7"]
        whole = medusa(*(str(word).replace("answers.jsonl", "whole.jsonl") for word in given))
        assert whole.status == 0, whole.error
        out = Path("answers.jsonl")
        slower = arguments_of(DISTILL, **places, **{"4": 2}) + given[-2:]
        main = "from medusa_decoding.cli.main import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", main, *slower], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while not out.is_file() or not out.stat().st_size:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        expected = Path("whole.jsonl").read_bytes()
        assert 0 < out.read_bytes().count(b"\n") < expected.count(b"\n") and expected.startswith(
            out.read_bytes()
        )
        ended = medusa(*given)
        assert ended.status == 0 and "were there before" in ended.error, ended.error
    assert out.read_bytes() == expected
