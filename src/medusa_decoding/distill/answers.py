"""The answers file: JSON Lines, one answer of the base model a line, only ever appended to.

A record holds `id`, `prompt` (text) or `messages` (a conversation), `prompt_ids`, `answer_ids` (the token
that ended the answer included, if there was one), `answer` (text) and `finish_reason` ("stop" or "length").
Where a prompt has several answers or turns, `prompt_id` tells which belong together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medusa_decoding.errors import UserError

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The part of a record that training needs.

    key: its id as text, which names it in the hidden cache. group: the prompt's id, the same for all its
    answers and turns; by default the key.
    """

    key: str
    prompt_ids: list[int]
    answer_ids: list[int]
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.key)


def read_records(path: Path, *, skip_torn: bool = False) -> Iterator[tuple[int, JsonObject]]:
    """Yield (line number from 1, object) of each line that is not blank.

    skip_torn: leave out a last line without its newline, which a killed run did not finish.
    Raises UserError naming the line that is no JSON object, and when the file cannot be read.
    """
    try:
        # Editors on Windows begin a file with a mark of its byte order.
        with path.open("r", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (skip_torn and not line.endswith("\n")):
                    yield number, _parsed(path, number, line)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; convert it first") from error


def read_list(path: Path, wanted: str = "objects") -> list[JsonObject]:
    """The objects of a JSON file that holds a list of them; an empty file holds none.

    Raises UserError when the file cannot be read or holds anything else; wanted: what, for the message.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if text.strip() else []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; convert it first") from error
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); name it .jsonl if it has a record a line"
        ) from None
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise UserError(f"{path} must hold a list of {wanted}; name it .jsonl if it has a record a line")
    return content


def read_answers(path: Path) -> list[Answer]:
    """The answers with at least one token, the last one of each id; a torn last line is left out.

    Raises UserError when a record lacks its ids.
    """
    answers = (answer_of(path, *numbered) for numbered in read_records(path, skip_torn=True))
    return list({answer.key: answer for answer in answers if answer.answer_ids}.values())


def answer_of(path: Path, number: int, record: JsonObject) -> Answer:
    """The record of one line, checked."""
    for name in ("prompt_ids", "answer_ids"):
        ids = record.get(name)
        if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
            raise UserError(f"{path}, line {number}: '{name}' must be a list of token ids; distill it again")
    if "id" not in record or not record["prompt_ids"]:
        raise UserError(f"{path}, line {number}: the record has no id or no prompt_ids; distill it again")
    key = str(record["id"])
    return Answer(key, record["prompt_ids"], record["answer_ids"], str(record.get("prompt_id", key)))


def append_records(path: Path, records: Iterable[JsonObject]) -> None:
    """Append records in one write, and return when they are on the disk."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def cut_torn_line(path: Path) -> int:
    """Cut off what a killed run left of a last line; returns the number of bytes cut."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = _end_of_last_line(file, size)
        if end < size:
            file.truncate(end)
    return size - end


def _end_of_last_line(file: Any, size: int) -> int:
    """The offset after the last newline, looked for backwards; 0 if there is none."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        if (place := file.read(end - start).rfind(b"\n")) >= 0:
            return int(start + place + 1)
        end = start
    return 0


def _parsed(path: Path, number: int, line: str) -> JsonObject:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number} is not valid JSON ({error}); mend or remove the line"
        ) from error
    if not isinstance(record, dict):
        raise UserError(f"{path}, line {number} holds no JSON object; mend or remove the line")
    return record
