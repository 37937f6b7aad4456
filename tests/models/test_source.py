from __future__ import annotations

from pathlib import Path

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.models import ALIASES, download, resolve


def test_an_alias_becomes_its_downloaded_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "fetch", lambda alias, progress: tmp_path / alias.file_name)
    source = resolve("smollm2")
    assert (source.kind, source.alias) == ("gguf", ALIASES["smollm2"])
    assert source.path == tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_files_and_folders_are_recognised(tmp_path: Path) -> None:
    gguf = tmp_path / "model.GGUF"
    gguf.write_bytes(b"GGUF")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert resolve(str(gguf)).kind == "gguf"
    assert resolve(str(gguf)).path == gguf
    assert resolve(str(folder)).kind == "folder"
    assert resolve(str(folder)).path == folder


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct", "a/b.c-d_e"])
def test_other_names_are_hub_ids(name: str) -> None:
    source = resolve(name)
    assert (source.kind, source.hub_id, source.path) == ("hub", name, None)


def test_a_folder_beats_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name").kind == "folder"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing.gguf", "there is no file missing.gguf"),
        ("empty.gguf", "empty.gguf is an empty file"),
        ("bare", "bare is a folder without config.json; give a .gguf file"),
        ("quantised", "give the file itself: quantised/m.gguf"),
        ("model.safetensors", "model.safetensors is not a .gguf file"),
        ("whole/model.safetensors", "is one file of a model; give its folder: whole"),
        ("smolm2", "did you mean smollm2?"),
        ("Qwen_Coder", "did you mean qwen-coder?"),
        ("../up", "give one of smollm2, qwen-coder, a .gguf file, a folder with config.json or a Hub id"),
        ("a/b/c", "'a/b/c' is no model"),
        ("", "is a folder without config.json"),
        ("two words", "'two words' is no model"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.gguf").touch()
    Path("bare").mkdir()
    Path("quantised").mkdir()
    Path("quantised/m.gguf").write_bytes(b"GGUF")
    Path("model.safetensors").write_bytes(b"x")
    Path("whole").mkdir()
    Path("whole/config.json").write_text("{}")
    Path("whole/model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        resolve(model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
