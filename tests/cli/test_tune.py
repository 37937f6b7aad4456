from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medusa_decoding.cli import tune
from medusa_decoding.heads.config import read_config
from medusa_decoding.training.tune_config import TuneConfig
from tests.cli.conftest import Command


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("One\nTwo\nThree\nFour\n")
    return path


@pytest.fixture
def own(heads: Path, tmp_path: Path) -> Path:
    """A copy of the heads, to be changed."""
    return Path(shutil.copytree(heads, tmp_path / "own"))


SHORT = ("--max-tokens", 24, "--nodes", 5)


def test_heads_are_calibrated_and_their_tree_is_used(
    medusa: Command, model: Path, own: Path, prompts: Path
) -> None:
    ended = medusa("tune", model, "--heads", own, "--prompts", prompts, *SHORT)
    assert ended.status == 0
    for said in (
        "greedy: 4 texts",
        "temperature 0.7: 4 texts",
        "calibration error",
        "true",
        "medusa_choices: [[",
    ):
        assert said in ended.output
    assert f"calibration and figures written: {own}" in ended.error
    fits = read_config(own / "medusa_config.json").path_calibration
    assert fits is not None
    assert [fit.temperature for fit in fits] == [0.0, 0.7, 1.0]
    record = json.loads((own / "tuning.json").read_text())
    assert str(own.parent) not in json.dumps(record)
    assert len(record["medusa_choices"]) <= 4
    write = ("generate", model, "-p", "One", "--heads", own, "--max-tokens", 12, "--json")
    plain = medusa("generate", model, "-p", "One", "--no-heads", "--max-tokens", 12, "--json")
    expected = json.loads(plain.output)["text"]
    for tree in (own / "tuning.json", json.dumps(record["medusa_choices"])):
        assert json.loads(medusa(*write, "--tree", tree).output)["text"] == expected


def test_json_has_the_figures_and_other_temperatures_stay(
    medusa: Command, model: Path, own: Path, prompts: Path
) -> None:
    arguments = ("tune", model, "--heads", own, "--prompts", prompts, *SHORT, "--json")
    first = json.loads(medusa(*arguments, "--temperature", 0.5).output)
    assert [one["temperature"] for one in first["measured"]] == [0.5]
    second = json.loads(medusa(*arguments, "--temperature", 0, "--temperature", 2).output)
    assert second["written"] == str(own)
    assert set(second["measured"][0]["top"]) == {"1", "3", "5", "10"}
    fits = read_config(own / "medusa_config.json").path_calibration
    assert fits is not None
    assert [fit.temperature for fit in fits] == [0.0, 0.5, 2.0]


def test_a_copy_leaves_the_heads_as_they_are(
    medusa: Command, model: Path, own: Path, prompts: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    copy = tmp_path / "copy"
    arguments = ("tune", model, "--heads", own, "--prompts", prompts, *SHORT, "--out", copy)
    assert medusa(*arguments).status == 0
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert read_config(copy / "medusa_config.json").path_calibration is not None
    again = medusa(*arguments)
    assert (again.status, again.error.count("\n")) == (2, 1)
    assert "holds heads already" in again.error


def test_answers_with_their_hidden_states_are_used(
    medusa: Command, model: Path, own: Path, prompts: Path, tmp_path: Path
) -> None:
    """And without them the engine computes the same ones."""
    out = tmp_path / "answers.jsonl"
    distill = ("distill", model, "--prompts", prompts, "--out", out, "--max-tokens", 24, "--temperature", 0.7)
    assert medusa(*distill).status == 0
    arguments = ("tune", model, "--heads", own, "--data", out, "--nodes", 5, "--json")
    kept = json.loads(medusa(*arguments).output)
    assert [one["temperature"] for one in kept["measured"]] == [0.7]
    assert kept["source"] == {"data": "answers.jsonl", "answers": 4, "held_out_in_training": False}
    shutil.rmtree(tmp_path / "hidden")
    computed = json.loads(medusa(*arguments).output)
    assert computed["measured"][0]["places"] == kept["measured"][0]["places"]
    # The kept ones are rounded to float16, which may change the order of two guesses of these random heads.
    for top, shares in kept["measured"][0]["top"].items():
        assert computed["measured"][0]["top"][top] == pytest.approx(shares, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either prompts"),
        (("--prompts", "a", "--data", "b"), "give either prompts"),
        (("--data", "nowhere.jsonl"), "there is no file nowhere.jsonl"),
        (("--prompts", "nowhere.txt"), "cannot read nowhere.txt"),
    ],
)
def test_wrong_sources_are_one_line(
    medusa: Command, model: Path, heads: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = medusa("tune", model, "--heads", heads, *arguments)
    assert (ended.status, ended.output, ended.error.count("\n")) == (2, "", 1)
    assert message in ended.error


def test_a_model_without_heads_is_told(medusa: Command, model: Path, prompts: Path) -> None:
    ended = medusa("tune", model, "--prompts", prompts)
    assert ended.status == 2
    assert "there are no heads for" in ended.error


def test_every_setting_has_a_help_text_and_no_help_is_left_over() -> None:
    assert tune.HELPS.keys() | {"temperatures"} == TuneConfig.model_fields.keys()
