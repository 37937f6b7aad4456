"""Every command of README.md and docs/: run here, parsed by the real command line, or named with the reason
why it is not tested.

Commands of `medusa` need no entry: they are parsed, which catches an option that is gone. Those in RUN are
run too, on a tiny model. Any other command needs a place in NOT_RUN (or is `make` or `pip`, see below).
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs import workspace
from tests.docs.commands import Command, documented, options, parsed
from tests.docs.pages import PAGES, REPOSITORY, Block, blocks, name_of, prose

SHORT = ["--max-tokens", "8"]
TRAIN = ["--num-heads", "2", "--epochs", "1", "--batch-tokens", "64", "--validation-fraction", "0.25"]

# In this order, in one folder: what is added here keeps a run short, and the last of an option given twice
# counts. Models that are not there are the tiny one.
RUN: dict[str, list[str]] = {
    "medusa generate smollm2 -p Why is the sky blue?": SHORT,
    "medusa generate smollm2 -p Why is the sky blue? --temperature 0.8 --seed 7": SHORT,
    "medusa generate smollm2 -p Why is the sky blue? --temperature 0.8 --seed 7 --no-heads": SHORT,
    "medusa chat smollm2 --show-drafts": SHORT,
    "medusa generate ./model.gguf -p -": [*SHORT, "--raw"],
    "medusa bench smollm2 --suite questions.jsonl --limit 40 --json result.json": [*SHORT, "--limit", "2"],
    "medusa bench smollm2 --suite questions.jsonl --against autoregressive,lookup --json result.json"
    " --markdown result.md": [*SHORT, "--limit", "2", "--tree", "6"],
    "medusa plot result.json --out pictures": ["--theme", "light", "--format", "svg"],
    "medusa distill ./my-model --prompts prompts.jsonl --out answers.jsonl": ["--max-tokens", "12"],
    "medusa train ./my-model --data answers.jsonl --out heads": TRAIN,
    "medusa tune ./my-model --heads heads --prompts others.jsonl": ["--max-tokens", "24", "--nodes", "5"],
    "medusa generate ./my-model --heads heads -p Hello": SHORT,
    "medusa train ./my-model --data answers.jsonl --out plain --condition none": TRAIN,
    "medusa convert plain --to vllm --base ./my-model --out for-vllm": [],
    "medusa generate ./my-finetune -p Hello --heads ./heads": SHORT,
    "medusa push heads me/my-heads": ["--dry-run"],
    "medusa generate model.gguf -p Why is the sky blue?": SHORT,
    "medusa distill model.gguf --prompts prompts.jsonl --exclude questions.jsonl --exclude others.jsonl"
    " --limit 80 --max-tokens 64 --out trial/answers.jsonl": SHORT,
    "medusa train model.gguf --data trial/answers.jsonl --out trial/heads --num-heads 3"
    " --draft-vocabulary 8192 --epochs 2": [*TRAIN, "--draft-vocabulary", "64"],
    "medusa distill model.gguf --prompts prompts.jsonl --self-prompts 3000 --exclude questions.jsonl"
    " --exclude others.jsonl --max-tokens 192 --out answers.jsonl": [*SHORT, "--self-prompts", "2"],
    "medusa train model.gguf --data answers.jsonl --out heads --num-heads 4 --num-layers 2"
    " --draft-vocabulary 8192 --loss kl --epochs 3": [*TRAIN, "--draft-vocabulary", "64"],
    "medusa tune model.gguf --heads heads --prompts others.jsonl": ["--max-tokens", "24", "--nodes", "5"],
    "medusa bench model.gguf --heads heads --draft heads --suite questions.jsonl --max-tokens 128": [
        *(*SHORT, "--limit", "2")
    ],
    "medusa generate model.gguf --heads heads -p Hello": SHORT,
    "medusa train smollm2 --data answers.jsonl --dry-run": [],
    "medusa train llama-3.1-8b --dry-run --gpu a100 --answer-tokens 10000000 --draft-vocabulary 32768": [],
}
STDIN = {"medusa chat smollm2 --show-drafts": "Hello\n"}

NOT_RUN = {
    "git clone REPOSITORY medusa": "there is no address yet that it could be cloned from",
    "cd medusa": "the tests are there already",
    ". .venv/bin/activate": "the tests run in it already",
    "hf auth login": "needs an account; huggingface_hub's own command",
    "accelerate launch --multi_gpu --num_processes 2 --no_python medusa train MODEL --data answers.jsonl"
    " --out heads": "needs two GPUs; what follows `medusa` is parsed",
}

# Other programs that this project can only name.
PROGRAMS = {
    "vllm": "3.5 GB; `make test-vllm` runs the heads in it",
    "sglang": "needs a GPU; `make test-sglang` runs the plugin on its classes",
}

# Flags of other programs that running text names.
FOREIGN = {
    *("--gpus", "--revision", "--speculate", "--medusa_choices", "--speculative-config"),
    *("--cpu", "--multi_gpu", "--num_cpu_threads_per_process", "--strict", "--speculative-draft-model-path"),
}

ALL = documented()


def described(command: Command) -> str:
    return f"{command.place} {command.text}"


def test_every_command_has_a_place() -> None:
    lost = [
        described(one)
        for one in ALL
        if one.medusa is None and one.text not in NOT_RUN and one.program not in ("make", "pip", *PROGRAMS)
    ]
    assert not lost, f"run these, or say in NOT_RUN why not: {lost}"


def test_the_tables_name_only_what_is_documented() -> None:
    known = {one.text for one in ALL}
    assert not RUN.keys() - known
    assert not NOT_RUN.keys() - known
    assert STDIN.keys() <= RUN.keys()
    assert PROGRAMS.keys() <= {one.program for one in ALL}


@pytest.mark.parametrize("command", [one for one in ALL if one.medusa is not None], ids=described)
def test_each_command_of_medusa_is_understood(command: Command) -> None:
    arguments = command.medusa
    assert arguments is not None
    parsed(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace.make(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's own: its reader has one model only."""
    return workspace.make(tmp_path_factory.mktemp("tutorial"))


def on_the_tiny_model(words: list[str]) -> list[str]:
    dry = "--dry-run" in words
    return ["./my-model" if word in ("smollm2", "MODEL") and not dry else word for word in words]


@pytest.mark.parametrize("text", RUN)
def test_commands_run(
    text: str,
    folder: Path,
    tutorial: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from medusa_decoding.cli.main import run

    command = next(one for one in ALL if one.text == text)
    here = tutorial if command.place.startswith("docs/tutorial.md") else folder
    monkeypatch.chdir(here)
    if text.startswith("medusa train") and " --out heads" in text:
        # Those of the workspace are for who asks for heads before, or alone.
        shutil.rmtree("heads")
    given = STDIN.get(text, "" if command.stdin is None else (here / command.stdin).read_text())
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    status = run(on_the_tiny_model([*(command.medusa or []), *RUN[text]]))
    assert status == 0, capsys.readouterr().err


def test_the_tutorial_shows_what_the_dry_runs_print(capsys: pytest.CaptureFixture[str]) -> None:
    from medusa_decoding.cli.main import run

    page = REPOSITORY / "docs" / "tutorial.md"
    shown = [block.lines for block in blocks(page) if block.lines[0].startswith("model      llama")]
    printed = []
    for command in ALL:
        if command.place.startswith("docs/tutorial.md") and "--gpu" in command.words:
            assert run(command.medusa or []) == 0
            printed.append(capsys.readouterr().out.splitlines())
    assert len(shown) == 2 and shown == printed


@pytest.mark.parametrize("command", [one for one in ALL if one.program == "make"], ids=described)
def test_targets_of_make_exist(command: Command) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *command.words[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [one for one in ALL if one.program == "pip"], ids=described)
def test_what_pip_installs_is_this_project_with_extras_that_it_has(command: Command) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pip, install, *what = command.words
    assert (pip, install) == ("pip", "install")
    for one in what:
        if one.startswith("./"):
            assert (REPOSITORY / one / "pyproject.toml").is_file()
            continue
        named = re.fullmatch(r"(\.|medusa-decoding)\[(?P<extras>[\w,-]+)\]", one)
        assert named, one
        assert set(named["extras"].split(",")) <= project["optional-dependencies"].keys()


PYTHON = [
    pytest.param(block, marks=[pytest.mark.real] if block.page == "README.md" else [], id=block.place)
    for page in PAGES
    for block in blocks(page)
    if block.language == "python"
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_runs(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(folder)
    code = "\n".join(block.lines)
    if "base_url=" in code:
        # The server of the serving tests answers, and its model is called tiny.
        server = request.getfixturevalue("server")
        code = code.replace("http://127.0.0.1:8000", server.url).replace("smollm2", "tiny")
    elif block.page != "README.md":
        code = code.replace('"smollm2"', '"./my-model"')
    exec(compile(code, block.place, "exec"), {"__name__": "documentation"})


SPAN = re.compile(r"`([^`]+)`")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_verbs_and_flags_in_running_text_exist(page: Path) -> None:
    verbs = options()
    shown = {word for one in ALL if one.program in PROGRAMS for word in one.words}
    everywhere = set().union(*verbs.values()) | FOREIGN | shown | {"--version"}
    for number, line in prose(page):
        for span in SPAN.findall(line):
            words = span.split()
            flags = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
            known = everywhere
            if words[0] == "medusa" and len(words) > 1 and words[1].isalpha() and words[1].islower():
                assert words[1] in verbs, f"{name_of(page)}:{number}: no verb {words[1]}"
                known = verbs[words[1]]
            unknown = {flag.rstrip(",.;:)") for flag in flags} - known
            place = f"{name_of(page)}:{number}: {span}"
            assert not unknown, f"{place}: no {', '.join(sorted(unknown))} (FOREIGN is for other programs)"


def test_the_reference_of_the_command_line_is_fresh() -> None:
    sys.path.insert(0, str(REPOSITORY))
    try:
        from tools.cli_reference import PAGE, reference
    finally:
        sys.path.remove(str(REPOSITORY))
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python tools/cli_reference.py"
