from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.cli import convert
from medusa_decoding.export.config import ConvertConfig
from tests.cli.conftest import Command


def test_what_is_lost_and_where_the_rest_is_are_printed(
    medusa: Command, model: Path, heads: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vllm"
    ended = medusa("convert", heads, "--to", "vllm", "--base", model, "--out", out)
    assert ended.status == 0
    assert ended.output.splitlines() == [
        f"heads for vLLM: {out} (0.0 MB)",
        "lost: the base model's projection is rounded to float16",
    ]
    assert ended.error == f"how to serve it: {out / 'README.md'}\n"
    ended = medusa("convert", heads, "--to", "v2", "--out", tmp_path / "v2")
    assert ended.output.splitlines()[1:] == ["lost: nothing"]


def test_the_export_is_used_without_a_flag(medusa: Command, model: Path, heads: Path, tmp_path: Path) -> None:
    write = ("generate", model, "-p", "One", "--max-tokens", 12, "--json")
    plain = json.loads(medusa(*write, "--no-heads").output)["text"]
    for to in ("v1", "v2", "vllm", "tgi", "tensorrt-llm", "full"):
        assert medusa("convert", heads, "--to", to, "--base", model, "--out", tmp_path / to).status == 0
        ended = medusa(*write, "--heads", tmp_path / to, "--draft", "heads", "--tree", 4)
        found = json.loads(ended.output)
        assert (found["text"], found["heads"]) == (plain, str(tmp_path / to))


def test_a_base_model_becomes_a_folder(medusa: Command, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    ended = medusa("convert", model, "--to", "hf", "--dtype", "bfloat16", "--out", out)
    assert ended.status == 0
    first, loss = ended.output.splitlines()
    assert first.startswith(f"model {model}: {out} (")
    assert loss == "lost: what of the weights bfloat16 cannot hold: they are rounded"
    assert "M weights as bfloat16" in ended.error
    assert "vllm serve FOLDER_OF_THIS_FILE --dtype bfloat16" in (out / "README.md").read_text()
    write = ("generate", "-p", "One", "--max-tokens", 12, "--json", "--dtype", "bfloat16", "--no-heads")
    texts = {json.loads(medusa(*write, folder).output)["text"] for folder in (model, out)}
    assert len(texts) == 1
    again = medusa("convert", model, "--to", "hf", "--out", out)
    assert (again.status, again.error.count("\n")) == (2, 1) and "is there already" in again.error
    for option in ("--base", "--tree"):
        ended = medusa("convert", model, "--to", "hf", option, "[[0]]", "--out", tmp_path / "no")
        assert (ended.status, ended.error.count("\n")) == (2, 1) and "is for heads" in ended.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "vllm"), "give it with --base"),
        (("--to", "onnx"), "onnx"),
        (("--to", "v1", "--base", "nowhere.gguf"), "there is no file nowhere.gguf"),
    ],
)
def test_mistakes_are_one_line(
    medusa: Command, heads: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = medusa("convert", heads, *arguments, "--out", tmp_path / "out")
    assert (ended.status, ended.output, ended.error.count("\n")) == (2, "", 1)
    assert message in ended.error
    assert not (tmp_path / "out").exists()


def test_a_folder_without_heads_is_told_what_was_looked_for(
    medusa: Command, model: Path, tmp_path: Path
) -> None:
    ended = medusa("convert", model, "--to", "v2", "--out", tmp_path / "out")
    assert (ended.status, ended.error.count("\n")) == (2, 1)
    assert "medusa_lm_head.safetensors" in ended.error


def test_every_setting_has_a_help_text_and_no_help_is_left_over() -> None:
    assert convert.HELPS.keys() | {"heads"} == ConvertConfig.model_fields.keys()


@pytest.mark.real
def test_packaged_heads_go_to_vllm_and_back(medusa: Command, tmp_path: Path) -> None:
    """The draft vocabulary's map goes along: as many steps as with the packaged heads, the same text."""
    out = tmp_path / "vllm"
    ended = medusa("convert", "smollm2", "--to", "vllm", "--out", out)
    assert ended.status == 0
    assert "smollm2-plain, are converted" in ended.error and "written out as all 49,152" in ended.output
    write = (
        "generate",
        "smollm2",
        "-p",
        "Name three colours.",
        "--max-tokens",
        24,
        "--json",
        "--draft",
        "heads",
    )
    packaged, exported = (
        json.loads(medusa(*write, "--tree", "[[0],[0,0]]", "--heads", heads).output)
        for heads in ("smollm2-plain", out)
    )
    assert exported["text"] == packaged["text"]
    assert exported["statistics"]["steps"] == packaged["statistics"]["steps"] < 23
