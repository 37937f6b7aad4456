"""A key for what files hold, for caches on disk, without reading gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from medusa_decoding.errors import UserError

_BEGINNING = 1 << 20
_SAMPLES = 32
_SAMPLE_BYTES = 4096


def key_of(files: Iterable[Path]) -> str:
    """Sixty-four hexadecimal digits from each file's name, size, time of change, first megabyte and samples.

    A changed file gives another key, unless somebody restores its time after a change between the samples.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            _add(digest, path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); download the model again") from error
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        status = path.stat()
        digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        digest.update(file.read(_BEGINNING))
        rest = status.st_size - _BEGINNING - _SAMPLE_BYTES
        # The last sample holds the file's last bytes.
        for index in range(_SAMPLES if rest > 0 else 0):
            file.seek(_BEGINNING + rest * index // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
