"""Records of the files that people keep training data in: JSONL, JSON, Parquet, folders and Hub ids of
`datasets`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medusa_decoding.distill.answers import JsonObject, read_list, read_records
from medusa_decoding.errors import UserError
from medusa_decoding.files import checksum

_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<split>[\w.\[\]%:-]+))?")
_SUFFIXES = {".jsonl", ".json", ".parquet", ".arrow", ".txt", ".csv"}
_FORMS = (
    "a .jsonl, .json or .parquet file, a folder of `datasets`, or a Hub id (owner/name or owner/name:split)"
)


@dataclass(frozen=True)
class Records:
    """One source of records. name: what the user wrote. files: in their order; none for a Hub id."""

    name: str
    files: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path) -> Records:
        """What `path` means; raises UserError where there is nothing."""
        name = str(path)
        if path.is_dir():
            return cls(name, tuple(_files_of(path)))
        if path.is_file():
            return cls(name, (path,))
        if path.suffix.lower() in _SUFFIXES or not _HUB_ID.fullmatch(name):
            raise UserError(f"there is no file {path}; make it with `medusa distill`, or give {_FORMS}")
        return cls(name, ())

    @property
    def file_name(self) -> str:
        """What others may know it by: a path of this machine is cut to its last part."""
        return Path(self.name).name if self.files else self.name

    @property
    def stem(self) -> str:
        """A short name."""
        path = Path(self.name)
        return re.sub(r"\W+", "-", path.stem if self.files else path.name) or "data"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the file, or of the checksums of several; of a Hub id's name, since its owner keeps the
        data.
        """
        if not self.files:
            return hashlib.sha256(self.name.encode()).hexdigest()
        sums = [checksum(path) for path in self.files]
        return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()

    def read(self) -> Iterator[tuple[str, int, JsonObject]]:
        """(where it stands, its number from 1, record) of each; raises UserError naming what is broken."""
        if not self.files:
            yield from _numbered(self.name, _from_hub(self.name))
        start = 0
        for path in self.files:
            for number, record in _records_of(path):
                yield f"{path}, record {number}", start + number, record
            start += number if len(self.files) > 1 else 0


def _numbered(name: str, records: Iterator[Any]) -> Iterator[tuple[str, int, JsonObject]]:
    for number, record in enumerate(records, 1):
        yield f"{name}, record {number}", number, dict(record)


def _records_of(path: Path) -> Iterator[tuple[int, JsonObject]]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield from enumerate(read_list(path), 1)
    elif suffix == ".parquet":
        yield from enumerate(_rows(path, "parquet"), 1)
    elif suffix == ".arrow":
        yield from enumerate(_rows(path, "arrow"), 1)
    else:
        yield from read_records(path, skip_torn=True)


def _rows(path: Path, kind: str) -> Iterator[JsonObject]:
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError:
        raise UserError(
            f"{path} needs pyarrow; install it with: pip install 'medusa-decoding[data]'"
        ) from None
    try:
        if kind == "parquet":
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(1024):
                    yield from batch.to_pylist()
        else:
            with pyarrow.memory_map(str(path)) as memory, ipc.open_stream(memory) as stream:
                for batch in stream:
                    yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as {kind} ({reason}); get it again") from error


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder that `save_to_disk` wrote, or of one with Parquet files; of several splits,
    `train`.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _json_file(folder / "dataset_dict.json").get("splits", [])
        if "train" not in splits and len(splits) != 1:
            raise UserError(f"{folder} has the splits {', '.join(splits)}; give the folder of one of them")
        return _files_of(folder / ("train" if "train" in splits else str(splits[0])))
    if (folder / "state.json").is_file():
        names = [str(one["filename"]) for one in _json_file(folder / "state.json").get("_data_files", [])]
        files = [folder / name for name in names if Path(name).name == name]
    else:
        files = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
        files = [path for path in files if path.name.startswith("train")] or files
    missing = [path for path in files if not path.is_file()]
    if missing or not files:
        what = f"lacks {missing[0].name}" if missing else "holds no data"
        raise UserError(f"{folder} {what}; give {_FORMS}")
    return files


def _json_file(path: Path) -> JsonObject:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); save the dataset again") from None
    return content if isinstance(content, dict) else {}


def _from_hub(name: str) -> Iterator[Any]:
    """The rows of a dataset on the Hub; data only, no code of its own."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"there is no file {name}; if it is a dataset on the Hub, install what reads it with:"
            " pip install datasets"
        ) from None
    match = _HUB_ID.fullmatch(name)
    assert match is not None
    try:
        return iter(datasets.load_dataset(match["name"], split=match["split"] or "train"))
    except Exception as error:  # whatever the network or the dataset's owner did
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot load the dataset {name} ({reason}); check the name, or give {_FORMS}"
        ) from error
