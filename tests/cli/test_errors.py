"""Bad input ends in one line that names the way out, and exit status 2."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Command, Ended
from tests.tiny import tiny_heads


def check(ended: Ended, *said: object) -> None:
    """One line on stderr that holds all of `said`; nothing on stdout."""
    assert (ended.status, ended.output) == (2, "")
    assert ended.error.startswith("medusa: error: ")
    assert ended.error.count("\n") == 1
    for words in said:
        assert str(words) in ended.error


def generate(medusa: Command, model: object, *flags: object) -> Ended:
    return medusa("generate", model, "-p", "Hi", "--max-tokens", 2, *flags)


@pytest.mark.parametrize("name", ["no such model", "./missing.gguf", "/missing/folder"])
def test_unknown_model(medusa: Command, name: str) -> None:
    check(generate(medusa, name), name)


def test_a_hub_id_without_network(medusa: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check(generate(medusa, "nobody/nothing"), "nobody/nothing")


def test_a_folder_that_is_no_model(medusa: Command, tmp_path: Path) -> None:
    check(generate(medusa, tmp_path), "config.json")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--temperature", -1),
        ("--temperature", "nan"),
        ("--top-p", 0),
        ("--top-k", -2),
        ("--min-p", 2),
        ("--repetition-penalty", 0),
        ("--max-tokens", 0),
        ("--seed", -1),
        ("--stop", ""),
    ],
)
def test_a_value_out_of_range_is_named_before_anything_is_loaded(
    medusa: Command, flag: str, value: object
) -> None:
    ended = generate(medusa, "no such model", flag, value)
    check(ended, flag.strip("-").replace("-", "_"))
    assert "no such model" not in ended.error


@pytest.mark.parametrize(
    ("flag", "value"), [("--device", "abacus"), ("--device", "cuda:99"), ("--dtype", "float7"), ("--tree", 0)]
)
def test_a_value_that_means_nothing(medusa: Command, model: Path, flag: str, value: object) -> None:
    check(generate(medusa, model, flag, value), value)


def test_a_missing_tree_file(medusa: Command, model: Path) -> None:
    check(generate(medusa, model, "--tree", "missing.json"), "missing.json")


@pytest.mark.parametrize("content", ["{", "[[0, 0]]", "[[0], [0]]", '"x"', '[[0], ["a"]]', "[[]]"])
def test_a_tree_file_that_is_no_tree(medusa: Command, model: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(content)
    check(generate(medusa, model, "--tree", path), path)


@pytest.mark.parametrize("name", ["missing", "missing/too/deep", "/missing/heads"])
def test_unknown_heads(medusa: Command, model: Path, name: str) -> None:
    check(generate(medusa, model, "--heads", name), name)


def test_heads_whose_shapes_do_not_fit(medusa: Command, model: Path, tmp_path: Path) -> None:
    check(generate(medusa, model, "--heads", tiny_heads(tmp_path, hidden_size=8)), "8", "16")


def test_heads_of_other_weights_only_warn(medusa: Command, model: Path, heads: Path, tmp_path: Path) -> None:
    other = shutil.copytree(heads, tmp_path / "heads")
    config = json.loads((other / "medusa_config.json").read_text())
    (other / "medusa_config.json").write_text(json.dumps({**config, "base_fingerprint": "0" * 16}))
    ended = generate(medusa, model, "--heads", other)
    assert ended.status == 0
    assert ended.error.startswith("medusa: warning: ")
    assert ended.error.count("\n") == 2


def test_damaged_heads(medusa: Command, model: Path, heads: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(heads, tmp_path / "heads")
    [weights] = damaged.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    check(generate(medusa, model, "--heads", damaged), weights.name)


def test_heads_with_an_unknown_key(medusa: Command, model: Path, heads: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(heads, tmp_path / "heads")
    config = json.loads((odd / "medusa_config.json").read_text())
    (odd / "medusa_config.json").write_text(json.dumps({**config, "colour": "red"}))
    check(generate(medusa, model, "--heads", odd), "colour")


class Attack:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_heads_that_are_not_plain_tensors_are_not_executed(
    medusa: Command, model: Path, tmp_path: Path
) -> None:
    folder, proof = tmp_path / "heads", tmp_path / "proof"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"medusa_num_heads": 1, "medusa_num_layers": 1}))
    torch.save({"0.0.linear.weight": Attack(proof)}, folder / "medusa_lm_head.pt")
    check(generate(medusa, model, "--heads", folder), "medusa_lm_head.pt")
    assert not proof.exists()


def test_damaged_safetensors(medusa: Command, model: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(model, tmp_path / "model")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    check(generate(medusa, damaged), damaged)


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"no model at all"]
)
def test_damaged_gguf(medusa: Command, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    check(generate(medusa, path), path)


def test_a_prompt_longer_than_the_context(medusa: Command, model: Path) -> None:
    check(medusa("generate", model, "-p", "x" * 400), "256")


def test_an_empty_prompts_file(medusa: Command, model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("")
    check(medusa("distill", model, "--prompts", prompts, "--out", tmp_path / "out.jsonl"), prompts)


def test_a_missing_prompts_file(medusa: Command, model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "none.jsonl"
    check(medusa("distill", model, "--prompts", prompts, "--out", tmp_path / "out.jsonl"), prompts)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("learning_rat: 1", "learning_rat"),
        ("epochs: 0", "epochs"),
        ("[1]", "recipe.yaml"),
        ("a: b: c", "YAML"),
    ],
)
def test_a_wrong_configuration(medusa: Command, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    check(medusa("train", "m", "--data", "d", "--out", "o", "--config", path), said)


def test_training_without_data_names_what_is_missing(medusa: Command) -> None:
    check(medusa("train", "m", "--out", "o"), "data")


def test_training_on_a_missing_file(medusa: Command, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "none.jsonl"
    check(medusa("train", model, "--data", data, "--out", tmp_path / "heads"), data)


def test_an_empty_suite(medusa: Command, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text("\n")
    check(medusa("bench", "no such model", "--suite", suite), suite, "empty")


def test_a_bench_of_nothing(medusa: Command, model: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"question_id": 1, "category": "qa", "turns": ["Hi"]}')
    check(medusa("bench", model, "--suite", suite, "--draft", "none"), "--heads", "--draft")


def test_a_demo_of_nothing(medusa: Command, model: Path) -> None:
    check(medusa("demo", model, "--draft", "heads"), "--heads", "--draft")


def test_a_chat_without_a_template(medusa: Command, model: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(model, tmp_path / "model")
    (bare / "chat_template.jinja").unlink()
    check(medusa("chat", bare, stdin="Hi\n"), "generate")


def test_a_file_where_a_folder_is_wanted(medusa: Command, model: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        "".join(
            json.dumps({"id": str(number), "prompt_ids": [5, 6, 7], "answer_ids": [8, 9, 10, 11]}) + "\n"
            for number in range(20)
        ),
        encoding="utf-8",
    )
    ended = medusa("train", model, "--data", answers, "--out", answers, "--epochs", 1)
    check(ended, answers, "is in the way", "give another")
    assert answers.read_text(encoding="utf-8").count("\n") == 20
