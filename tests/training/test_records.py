from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from pyarrow import ipc, parquet

from medusa_decoding.errors import UserError
from medusa_decoding.training.records import Records

ROWS: list[dict[str, Any]] = [
    {"id": number, "messages": [{"role": "user", "content": f"é{number}"}]} for number in range(5)
]


def saved_dataset(folder: Path, rows: list[dict[str, Any]], pieces: int = 2) -> Path:
    """The layout of `datasets.Dataset.save_to_disk`."""
    folder.mkdir(parents=True)
    names = [f"data-{piece:05d}-of-{pieces:05d}.arrow" for piece in range(pieces)]
    for piece, name in enumerate(names):
        table = pyarrow.Table.from_pylist(rows[piece::pieces])
        with pyarrow.OSFile(str(folder / name), "wb") as file, ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    return [record for _, _, record in Records.at(path).read()]


def test_jsonl_json_and_parquet_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(ROWS), encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for suffix in ("jsonl", "json", "parquet"):
        path = tmp_path / f"a.{suffix}"
        assert read(path) == ROWS
        assert [where for where, _, _ in Records.at(path).read()][3] == f"{path}, record 4"


def test_folder_of_datasets(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "data", ROWS)
    assert read(folder) == [*ROWS[::2], *ROWS[1::2]]
    # Numbers go on over files, so that they name one record each.
    assert [number for _, number, _ in Records.at(folder).read()] == [1, 2, 3, 4, 5]


def test_folder_with_splits_takes_train(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "all" / "train", ROWS[:2])
    saved_dataset(tmp_path / "all" / "test", ROWS[2:])
    splits = tmp_path / "all" / "dataset_dict.json"
    splits.write_text('{"splits": ["test", "train"]}', encoding="utf-8")
    assert read(tmp_path / "all") == ROWS[:2]
    splits.write_text('{"splits": ["test", "dev"]}', encoding="utf-8")
    with pytest.raises(UserError, match="has the splits test, dev; give the folder of one"):
        read(tmp_path / "all")


def test_folder_of_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, rows in (("test-0", ROWS[:1]), ("train-1", ROWS[3:]), ("train-0", ROWS[1:3])):
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data" / f"{name}.parquet")
    assert read(tmp_path) == ROWS[1:]


def test_checksum_changes_with_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    before = Records.at(path).checksum
    path.write_text("{}\n{}\n", encoding="utf-8")
    assert Records.at(path).checksum != before
    folder = saved_dataset(tmp_path / "data", ROWS)
    before = Records.at(folder).checksum
    next(folder.glob("*00001-of*.arrow")).write_bytes(b"other")
    assert Records.at(folder).checksum != before


def test_hub_ids_are_loaded_with_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        if name == "owner/absent":
            raise FileNotFoundError("there is\nno such thing")
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read(Path("owner/name")) == read(Path("owner/v1.5:train_sft")) == ROWS
    assert asked == [("owner/name", "train"), ("owner/v1.5", "train_sft")]
    with pytest.raises(UserError, match=r"cannot load the dataset owner/absent \(there is no such thing\)"):
        read(Path("owner/absent"))


def test_hub_id_without_datasets_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        read(Path("owner/name"))


def test_parquet_without_pyarrow_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'medusa-decoding\[data\]'"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "{}\n[]\n", "line 2 holds no JSON object"),
        ("a.json", "{}", "must hold a list of objects"),
        ("a.json", "{", "is not valid JSON"),
        ("a.parquet", "nothing", "cannot be read as parquet"),
        ("d/state.json", '{"_data_files": [{"filename": "x.arrow"}]}', "lacks x.arrow"),
        ("d/state.json", "{", "is damaged"),
        ("d/state.json", '{"_data_files": [{"filename": "../../x.arrow"}]}', "holds no data"),
        ("d/readme.txt", "", "holds no data"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name.split("/")[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.jsonl", "folder/nothing.parquet", "/nothing/at/all"])
def test_missing_files_are_named(name: str) -> None:
    with pytest.raises(UserError, match="there is no file"):
        Records.at(Path(name))
