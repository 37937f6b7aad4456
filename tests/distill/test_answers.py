from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.distill.answers import Answer, append_records, cut_torn_line, read_answers, read_records
from medusa_decoding.errors import UserError


def record(key: int | str, answer_ids: list[int]) -> dict[str, object]:
    return {"id": key, "prompt": "é", "prompt_ids": [1, 2], "answer_ids": answer_ids, "answer": "ü"}


def test_appended_records_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_records(path, [record(7, [3, 4])])
    append_records(path, [record("x", [5])])
    assert read_answers(path) == [Answer("7", [1, 2], [3, 4]), Answer("x", [1, 2], [5])]


def test_prompt_id_is_the_group(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_records(path, [record(7, [3]), {**record("7#2", [4]), "prompt_id": 7}])
    assert [answer.group for answer in read_answers(path)] == ["7", "7"]


def test_last_answer_of_an_id_counts_and_empty_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_records(path, [record(1, [3]), record(2, []), record(1, [4, 5])])
    assert read_answers(path) == [Answer("1", [1, 2], [4, 5])]


def test_torn_line_is_cut_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_records(path, [record(1, [3])])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": 2, "prom')
    assert read_answers(path) == [Answer("1", [1, 2], [3])]
    assert cut_torn_line(path) == 15
    assert path.read_bytes() == whole
    assert cut_torn_line(path) == 0


def test_torn_line_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"{}\n" + b"x" * 200_000)
    assert cut_torn_line(path) == 200_000
    assert path.read_bytes() == b"{}\n"


def test_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"id"')
    cut_torn_line(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "message"),
    [("{nonsense}", "line 2 is not valid JSON"), ("[1]", "line 2 holds no JSON object")],
)
def test_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(f'{{"id": 1}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError, match=message):
        list(read_records(path))


@pytest.mark.parametrize(
    "change",
    [
        {"answer_ids": "text"},
        {"answer_ids": [1.5]},
        {"prompt_ids": None},
        {"prompt_ids": []},
        {"answer_ids": [-1]},
    ],
)
def test_record_without_ids_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({**record(1, [3]), **change}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1.*distill it again"):
        read_answers(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*check the path"):
        list(read_records(tmp_path / "nothing.jsonl"))
