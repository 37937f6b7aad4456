"""`medusa push`, and the heads that it pushed wherever heads are taken; against a stand-in for the Hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medusa_decoding.cli import push
from medusa_decoding.heads.config import read_config
from medusa_decoding.heads.location import BESIDE
from medusa_decoding.heads.plain import read_arrays
from medusa_decoding.training.push_config import PushConfig
from medusa_decoding.training.report import RECORD_FILE, TrainingReport, model_card, save_report
from medusa_decoding.training.tune_report import TUNING_FILE
from tests.cli.conftest import Command, Ended
from tests.hub.stand_in import StandIn

PUSHED = {"medusa_config.json", "medusa_heads.safetensors", "training.json", "README.md"}
FIGURES = {"epoch": 1, "top1": [0.5, 0.25], "top3": [0.6, 0.3], "top5": [0.7, 0.4], "tokens_per_step": 1.625}


def record(**base: str) -> TrainingReport:
    """Of a training that made the tiny heads."""
    sources = [{"path": "answers.jsonl", "answers": 9, "sha256": "5" * 64}]
    return TrainingReport(
        recipe={"num_heads": 2, "num_layers": 1, "projection": "shared", "condition": "none", "epochs": 3,
                "draft_vocabulary": None},
        data={"texts": 7, "positions": 70, "validation_texts": 2, "validation_positions": 20, "coverage": 1.0,
              "validation_coverage": 1.0, "draft_vocabulary": 258, "sha256": "d" * 64, "sources": sources},
        base={"model": "qwen-coder", "fingerprint": "f" * 16, **base},
        machine={"gpu": None, "processor": "Abacus 3000", "threads": 2},
        versions={"medusa-decoding": "0"},
        history=[FIGURES],
        calibration=[{"accuracy": 0.5, "confidence": [0.4, 0.5], "error": [0.1, 0.01]}] * 2,
        finished=True,
    )  # fmt: skip


@pytest.fixture
def trained(heads: Path, tmp_path: Path) -> Path:
    """The heads as `train` leaves them, beside what must not be pushed."""
    folder = Path(shutil.copytree(heads, tmp_path / "trained"))
    save_report(folder, record())
    (folder / "README.md").write_text(model_card(record()))
    for name in ("checkpoint.pt", "answers.jsonl", "hidden/1.safetensors", "warmup/medusa_heads.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for others")
    return folder


def front_matter(card: str | bytes) -> dict[str, Any]:
    text = card.decode() if isinstance(card, bytes) else card
    return dict(yaml.safe_load(text.split("---\n")[1]))


def check(ended: Ended, *said: str) -> None:
    assert (ended.status, ended.output, ended.error.count("\n")) == (2, "", 1), ended.error
    for words in said:
        assert words in ended.error


def test_pushed_heads_decode_as_those_of_the_folder(
    medusa: Command, hub: StandIn, model: Path, trained: Path
) -> None:
    ended = medusa("push", trained, "me/heads", "--private", "--commit-message", "Better ones")
    assert (ended.status, ended.output) == (
        0,
        f"{hub.url}/me/heads/commit/{hub.repos['me/heads'].refs['main']}\n",
    )
    assert hub.repos["me/heads"].private and hub.repos["me/heads"].messages[-1] == "Better ones"
    assert hub.files("me/heads").keys() == PUSHED | {".gitattributes"}
    (config, state), (_, expected) = read_arrays("me/heads"), read_arrays(trained)
    assert config == read_config(trained / "medusa_config.json")
    assert state.keys() == expected.keys()
    assert all((state[name] == expected[name]).all() for name in state)
    generate = ("generate", model, "-p", "One", "--max-tokens", 12, "--draft", "heads", "--json", "--heads")
    there, here = (json.loads(medusa(*generate, heads).output) for heads in ("me/heads", trained))
    assert there["heads"] == "me/heads" and there["text"] == here["text"]


def test_the_card_says_what_the_records_say(medusa: Command, hub: StandIn, trained: Path) -> None:
    assert medusa("push", trained, "me/heads").status == 0
    card = hub.files("me/heads")["README.md"].decode()
    assert front_matter(card) == {
        "base_model": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        "license": "apache-2.0",
        "library_name": "medusa-decoding",
        "tags": ["medusa", "speculative-decoding"],
    }
    for said in ("| epochs | `3` |", "5" * 64, "| 2 | 0.250 |", "1.62 tokens per step", "Abacus 3000",
                 'load("qwen-coder", heads="me/heads")'):  # fmt: skip
        assert said in card
    assert "FOLDER_OF" not in card and "FOLDER_OF_THIS_FILE" in (trained / "README.md").read_text()


def test_a_tuning_goes_along_with_its_figures(
    medusa: Command, hub: StandIn, model: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("One\nTwo\nThree\nFour\n")
    tune = ("--prompts", tmp_path / "prompts.txt", "--max-tokens", 24, "--temperature", 0)
    assert medusa("tune", model, "--heads", trained, *tune).status == 0
    assert "## Tuning" in (trained / "README.md").read_text()
    assert medusa("push", trained, "me/heads").status == 0
    files = hub.files("me/heads")
    assert files.keys() == PUSHED | {".gitattributes", "tuning.json"}
    rates = [tokens for _, tokens in json.loads(files["tuning.json"])["measured"][0]["trees_after"].values()]
    assert f"| 0 | {' | '.join(f'{tokens:.2f}' for tokens in rates)} |" in files["README.md"].decode()
    # On the Hub they cannot be tuned, in a copy they can.
    check(medusa("tune", model, "--heads", "me/heads", *tune), "me/heads are on the Hub", "--out")
    assert medusa("tune", model, "--heads", "me/heads", *tune, "--out", tmp_path / "copy").status == 0
    assert (tmp_path / "copy" / "training.json").read_bytes() == files["training.json"]


def test_a_dry_run_asks_nobody(
    medusa: Command, hub: StandIn, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    ended = medusa("push", trained, "me/heads", "--dry-run")
    assert ended.status == 0 and hub.requests == []
    names = re.findall(r"^ *[\d.]+ [kM]B  (\S+)", ended.output, re.MULTILINE)
    assert set(names) == PUSHED
    assert "base_model: Qwen/" in ended.output


def test_a_branch_is_created_and_read_by_its_name(
    medusa: Command, hub: StandIn, model: Path, trained: Path
) -> None:
    for flags in (("me/heads", "--revision", "v1"), ("me/heads@v2",)):
        assert medusa("push", trained, *flags).status == 0
    assert hub.files("me/heads").keys() == {".gitattributes"}
    assert hub.files("me/heads", "v1") == hub.files("me/heads", "v2") | {
        "README.md": hub.files("me/heads", "v1")["README.md"]
    }
    assert 'heads="me/heads@v2"' in hub.files("me/heads", "v2")["README.md"].decode()
    assert medusa("generate", model, "-p", "Hi", "--max-tokens", 2, "--heads", "me/heads@v1").status == 0
    check(
        medusa("generate", model, "-p", "Hi", "--heads", "me/heads"), "No Medusa heads in me/heads on the Hub"
    )
    check(medusa("push", trained, "me/heads@v1", "--revision", "v2"), "leave one out")


def test_what_is_there_already_is_not_committed_again(medusa: Command, hub: StandIn, trained: Path) -> None:
    first = medusa("push", trained, "me/heads")
    again = medusa("push", trained, "me/heads")
    assert again.output == first.output and len(hub.repos["me/heads"].messages) == 2
    assert "had all of this already" in again.error


def test_files_of_other_heads_go(medusa: Command, hub: StandIn, trained: Path) -> None:
    """Those of a base model stay: its names are not the heads' own."""
    mine = {"medusa_lm_head.safetensors": b"old", "tuning.json": b"old"}
    others = {"config.json": b"{}", "model.safetensors": b"base", "notes.txt": b"mine"}
    hub.add("me/heads", {**mine, **others})
    ended = medusa("push", trained, "me/heads")
    assert "removed there" in ended.error and "medusa_lm_head.safetensors, tuning.json" in ended.error
    assert hub.files("me/heads").keys() == PUSHED | others.keys()


def test_a_card_edited_on_the_hub_stays_unless_told(medusa: Command, hub: StandIn, trained: Path) -> None:
    medusa("push", trained, "me/heads")
    repo = hub.repos["me/heads"]
    made = hub.files("me/heads")["README.md"]
    edited = made.replace(b"# Medusa heads", b"# My Medusa heads")
    repo.commit("main", {**hub.files("me/heads"), "README.md": edited}, "by hand")
    ended = medusa("push", trained, "me/heads")
    assert "edited by hand and stays; --replace-card" in ended.error
    assert hub.files("me/heads")["README.md"] == edited
    assert medusa("push", trained, "me/heads", "--replace-card").status == 0
    assert hub.files("me/heads")["README.md"] == made


def test_a_card_that_was_made_is_made_anew(medusa: Command, hub: StandIn, trained: Path) -> None:
    medusa("push", trained, "me/heads")
    ended = medusa("push", trained, "me/heads", "--base-model", "me/base", "--license", "mit")
    assert ended.status == 0 and "by hand" not in ended.error
    found = front_matter(hub.files("me/heads")["README.md"])
    assert (found["base_model"], found["license"]) == ("me/base", "mit")


def test_a_card_edited_here_goes_as_it_is(medusa: Command, hub: StandIn, trained: Path) -> None:
    card = (trained / "README.md").read_text().replace("# Medusa heads", "# My heads")
    (trained / "README.md").write_text(card)
    check(medusa("push", trained, "me/heads", "--license", "mit"), "README.md was edited by hand")
    ended = medusa("push", trained, "me/heads")
    assert "README.md went as it is" in ended.error
    assert hub.files("me/heads")["README.md"].decode() == card


@pytest.mark.parametrize(("said", "found"), [("llama3", "llama3"), ("other", None), (None, None)])
def test_the_licence_of_a_base_on_the_hub_is_asked(
    medusa: Command, hub: StandIn, trained: Path, said: str | None, found: str | None
) -> None:
    if said is not None:
        hub.add("meta/llama", {"README.md": f"---\nlicense: {said}\n---\n".encode()})
    save_report(trained, record(model="meta/llama"))
    assert medusa("push", trained, "me/heads").status == 0
    written = front_matter(hub.files("me/heads")["README.md"])
    assert (written["base_model"], written.get("license")) == ("meta/llama", found)


def test_heads_without_a_record_get_a_card_that_says_so(medusa: Command, hub: StandIn, heads: Path) -> None:
    assert medusa("push", heads, "me/heads").status == 0
    assert hub.files("me/heads").keys() == (PUSHED - {"training.json"}) | {".gitattributes"}
    card = hub.files("me/heads")["README.md"].decode()
    assert "2 heads (1 residual block(s) each" in card and "not recorded" in card


def test_packaged_heads_are_pushed_by_their_name(medusa: Command, hub: StandIn) -> None:
    assert medusa("push", "qwen-coder-plain", "me/plain").status == 0
    assert hub.files("me/plain").keys() == PUSHED | {"tuning.json", ".gitattributes"}


def damage(folder: Path) -> None:
    path = folder / "medusa_heads.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def empty(folder: Path) -> None:
    for name in ("medusa_config.json", "medusa_heads.safetensors"):
        (folder / name).unlink()


def log_out(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("HF_TOKEN")


def forget_token(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    hub.users.clear()


def give_away(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    hub.add("someone/heads", {})


def cut_off(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


def go_offline(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def break_down(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    hub.status = 500


def nothing(hub: StandIn, patch: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("repo", "change", "said"),
    [
        ("me/heads", log_out, "nobody is logged in to the Hub: run `hf auth login`, or set HF_TOKEN"),
        ("me/heads", forget_token, "does not accept the token: run `hf auth login`"),
        ("someone/heads", give_away, "may not write to someone/heads (403); push to me/heads"),
        ("someone/new", nothing, "may not write to someone/new (403); push to me/new"),
        ("me/heads", cut_off, "cannot be reached, and nothing was pushed"),
        ("me/heads", go_offline, "HF_HUB_OFFLINE is set: unset it to push"),
        ("me/heads", break_down, "the Hub answers 500 to me/heads"),
        ("heads", nothing, "'heads' is no name for a repository on the Hub; give owner/name"),
        ("me/he ads", nothing, "'me/he ads' is no name"),
        ("me/heads--x", nothing, "'me/heads--x' is no name"),
    ],
)
def test_why_nothing_was_pushed_is_one_line(
    medusa: Command, hub: StandIn, trained: Path, monkeypatch: pytest.MonkeyPatch,
    repo: str, change: Callable[[StandIn, pytest.MonkeyPatch], None], said: str,
) -> None:  # fmt: skip
    change(hub, monkeypatch)
    ended = medusa("push", trained, repo)
    lines = ended.error.splitlines()
    assert (ended.status, ended.output) == (2, "") and said in lines[-1]
    assert len(lines) <= 2 and all(line.startswith("pushing ") for line in lines[:-1])
    assert not hub.repos.get(repo) or set(hub.files(repo)) <= {".gitattributes"}


@pytest.mark.parametrize(
    ("change", "said"),
    [(damage, "medusa_heads.safetensors"), (empty, "No Medusa heads in"), (shutil.rmtree, "trained")],
)
def test_what_holds_no_heads_is_not_pushed(
    medusa: Command, hub: StandIn, trained: Path, change: Callable[[Path], None], said: str
) -> None:
    change(trained)
    check(medusa("push", trained, "me/heads"), said)
    assert hub.requests == []


def test_metadata_that_the_hub_refuses_is_one_line(medusa: Command, hub: StandIn, trained: Path) -> None:
    (trained / "README.md").write_text("---\nbase_model: [\n---\n# Mine\n")
    ended = medusa("push", trained, "me/heads")
    assert ended.status == 2 and "the Hub does not take this (Invalid metadata in README.md" in ended.error
    assert "Traceback" not in ended.error


def test_processes_push_load_and_load_again_without_a_network(
    hub: StandIn, model: Path, trained: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_mine",
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from medusa_decoding.cli.main import main; sys.argv[0] = 'medusa'; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**environment, **more}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    pushed = run("push", trained, "me/heads")
    assert pushed.returncode == 0, pushed.stderr
    # What is not on a terminal has no progress bars.
    assert pushed.stderr.count("\n") == 1 and "%" not in pushed.stderr
    generate = ("generate", model, "-p", "One", "--max-tokens", 8, "--json", "--heads", "me/heads")
    online, offline = run(*generate), run(*generate, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert online.returncode == offline.returncode == 0, online.stderr + offline.stderr
    assert json.loads(online.stdout)["text"] == json.loads(offline.stdout)["text"]


def test_every_setting_has_a_help_text_and_records_have_their_names() -> None:
    assert push.HELPS.keys() | {"heads", "repo"} == PushConfig.model_fields.keys()
    assert {RECORD_FILE, TUNING_FILE, "README.md"} <= set(BESIDE)
