from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medusa_decoding import UserError, __version__
from medusa_decoding.cli import main
from medusa_decoding.cli.main import app
from tests.cli.conftest import Command

VERBS = (
    "demo",
    "generate",
    "chat",
    "serve",
    "pull",
    "distill",
    "train",
    "recipe",
    "tune",
    "convert",
    "push",
    "bench",
    "profile",
    "plot",
)
COMMAND = [sys.executable, "-c", "from medusa_decoding.cli.main import main; main()"]


@pytest.mark.parametrize("arguments", ["['--help']", "['--version']", "['train', '--help']"])
def test_help_is_fast_because_nothing_heavy_is_imported(arguments: str) -> None:
    code = (
        f"import sys; from medusa_decoding.cli.main import run; status = run({arguments})\n"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors'} & sys.modules.keys()\n"
        "print(sorted(heavy), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_the_version_is_the_packages(medusa: Command) -> None:
    assert medusa("--version").output == f"medusa {__version__}\n"


def test_without_a_verb_there_is_help(medusa: Command) -> None:
    shown = medusa()
    assert shown.status == 0
    assert shown.output == medusa("--help").output
    assert [line.split()[0] for line in shown.output.split("Commands:\n")[1].splitlines()] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_option_of_each_verb_has_a_help_text(verb: str) -> None:
    shown = CliRunner(env={"COLUMNS": "400"}).invoke(app, [verb, "--help"]).output
    options = [line.split("  ") for line in shown.split("Options:\n")[1].splitlines()]
    assert options
    assert all(line.strip() and parts[-1].strip() for parts in options for line in parts[-1:])
    # The first line may say that an argument can be repeated.
    assert "..." not in shown.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["talk"], "No such command 'talk'"),
        (["generate"], "Missing argument 'MODEL'"),
        (["generate", "m"], "--prompt"),
        (["generate", "m", "-p", "x", "--tempratur", "1"], "--tempratur"),
        (["generate", "m", "-p", "x", "--temperature", "warm"], "--temperature"),
        (["generate", "m", "-p", "x", "--acceptance", "most"], "'exact', 'typical'"),
        (["bench", "m", "--suite", "s", "--limit", "0"], "--limit"),
        (["distill", "m", "--prompts", "p"], "--out"),
    ],
)
def test_wrong_usage_is_one_line_that_points_to_the_help(
    medusa: Command, arguments: list[str], said: str
) -> None:
    ended = medusa(*arguments)
    assert (ended.status, ended.output) == (2, "")
    assert ended.error.count("\n") == 1
    assert ended.error.startswith("medusa: error: ")
    assert said in ended.error
    assert "--help')" in ended.error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("no\nsuch thing: give another"), 2, "medusa: error: no such thing: give another\n"),
        (
            PermissionError(13, "Permission denied", "/root/x"),
            2,
            "medusa: error: Permission denied: /root/x\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_inside_a_verb_becomes_a_line_and_a_status(
    medusa: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("medusa_decoding.models.download.pull", fail)
    ended = medusa("pull", "x")
    assert (ended.status, ended.output, ended.error) == (status, "", said)


def test_a_fault_of_the_program_is_one_line_too_and_shows_where_it_is_if_asked(
    medusa: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("cannot happen")

    monkeypatch.setattr("medusa_decoding.models.download.pull", fail)
    monkeypatch.delenv("MEDUSA_TRACEBACK", raising=False)
    ended = medusa("pull", "x")
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert "AssertionError: cannot happen (MEDUSA_TRACEBACK=1 shows where)" in ended.error
    monkeypatch.setenv("MEDUSA_TRACEBACK", "1")
    with pytest.raises(AssertionError):
        medusa("pull", "x")


def test_pull_prints_where_the_model_is(medusa: Command, model: Path) -> None:
    assert medusa("pull", model).output == f"{model}\n"


def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    piped = f'set -o pipefail; {sys.executable} -c "{COMMAND[2]}" --help | true'
    for _ in range(3):
        done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.returncode in (0, 141)


def test_main_exits_with_the_status_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["medusa", "nonsense"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 2


def test_text_is_utf8_in_any_locale(model: Path) -> None:
    arguments = [*COMMAND, "generate", str(model), "-p", "h\u00e9", "--raw", "--json", "--max-tokens", "3"]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(arguments, capture_output=True, env=plain, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout.decode())["statistics"]["prompt_tokens"] == len("h\u00e9".encode())


def test_a_prompt_that_is_no_text_is_refused(model: Path) -> None:
    arguments = [*COMMAND, "generate", str(model), "-p"]
    piped = subprocess.run([*arguments, "-"], input=b"\xff\xfe", capture_output=True, check=False)
    given = subprocess.run([*arguments, b"\xff"], capture_output=True, check=False)
    assert piped.returncode == given.returncode == 2
    assert b"stdin is not UTF-8" in piped.stderr
    assert b"prompt is not UTF-8" in given.stderr


def test_a_closed_stdout_is_no_fault() -> None:
    command = f'{sys.executable} -c "{COMMAND[2]}" --version >&-'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
