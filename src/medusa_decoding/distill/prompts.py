"""Prompts files: JSON Lines, ShareGPT, plain text; all become conversations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medusa_decoding.distill.answers import read_list, read_records
from medusa_decoding.distill.code_prompts import PYTHON_LIBRARY, code_prompts
from medusa_decoding.errors import UserError
from medusa_decoding.files import checksum

Message = dict[str, Any]
Key = int | str

# ShareGPT's speakers, in the words of chat templates.
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip
_FORMS = "'prompt', 'messages', 'turns' or 'conversations'"
# Their lines are not prompts, though they could be taken for some.
_OTHER_FORMATS = {".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".ods", ".yaml", ".yml", ".xml", ".html"}


@dataclass(frozen=True)
class Prompt:
    """What the base model is asked next: a conversation that ends with the user's message.

    key: the record's own `id` (or `question_id`), else its number, from 1.
    messages: what was said so far. later: the user's further messages, asked after each answer. turn and
    sample: which turn of the conversation this is, and which of several answers to it, from 1.
    """

    key: Key
    messages: list[Message]
    later: list[str] = field(default_factory=list)
    turn: int = 1
    sample: int = 1

    @property
    def text(self) -> str | None:
        """The message, where there is only one."""
        return str(self.messages[0]["content"]) if len(self.messages) == 1 else None

    @property
    def name(self) -> Key:
        """The id of the answer: `key`, `key/2` for the second turn, `key#2` for the second answer."""
        name = self.key if self.sample == 1 else f"{self.key}#{self.sample}"
        return name if self.turn == 1 else f"{name}/{self.turn}"

    def after(self, answer: str) -> Prompt | None:
        """The next turn, once this one is answered; None after the last."""
        if not self.later:
            return None
        said = [{"role": "assistant", "content": answer}, {"role": "user", "content": self.later[0]}]
        return replace(self, messages=[*self.messages, *said], later=self.later[1:], turn=self.turn + 1)


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a file.

    `.jsonl` holds an object a line, `.json` a list of objects, with `prompt`, `messages`, `turns` (the
    user's) or ShareGPT's `conversations`; any other file holds one prompt a line. Answers in the file are not
    read. The name `python-library` stands for prompts about the functions of Python's standard library, where
    there is no such file. Raises UserError naming the line (or record) that is broken, of no known form, or
    has an id a second time, and when there are none.
    """
    if _is_library(path):
        return [Prompt(name, [{"role": "user", "content": text}]) for name, text in code_prompts()]
    found: dict[str, int] = {}
    prompts = []
    for number, key, messages in _conversations(path):
        prompt = _first_turn(path, number, key, messages)
        if (earlier := found.setdefault(str(key), number)) != number:
            raise UserError(
                f"{path}: records {earlier} and {number} have the same id '{key}'; give each its own"
            )
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{path} holds no prompts; give a file with at least one")
    return prompts


def prompts_checksum(path: Path) -> str:
    """The SHA-256 of a prompts file, or of what its name stands for."""
    if not _is_library(path):
        return checksum(path)
    return hashlib.sha256(json.dumps(list(code_prompts())).encode()).hexdigest()


def _is_library(path: Path) -> bool:
    return str(path) == PYTHON_LIBRARY and not path.exists()


def gather_prompts(paths: Iterable[Path]) -> list[Prompt]:
    """The prompts of several files; see `read_prompts`.

    Keys of all files but the first begin with their file's name, `name:key`: each file counts its own.
    """
    prompts: list[Prompt] = []
    for place, path in enumerate(paths):
        found = read_prompts(path)
        prompts.extend(replace(one, key=f"{path.stem}:{one.key}") if place else one for one in found)
    return prompts


def check_names(prompts: Iterable[Prompt]) -> None:
    """Raises UserError where two answers, of any turn, would have the same id."""
    names: set[str] = set()
    for prompt in prompts:
        turn: Prompt | None = prompt
        while turn is not None:
            if str(turn.name) in names:
                raise UserError(
                    f"two prompts would have answers of the id '{turn.name}';"
                    " give prompts (and prompts files, where there are several) different names"
                )
            names.add(str(turn.name))
            turn = turn.after("")


def sampled(prompts: Sequence[Prompt], answers: int) -> list[Prompt]:
    """Each prompt `answers` times: all for a first answer, then all for a second."""
    return [replace(prompt, sample=sample) for sample in range(1, answers + 1) for prompt in prompts]


def read_conversations(path: Path) -> Iterator[tuple[Key, list[Message]]]:
    """(id, messages) of each conversation of a file, the assistant's messages included."""
    for _, key, messages in _conversations(path):
        yield key, messages


def _conversations(path: Path) -> Iterator[tuple[int, Key, list[Message]]]:
    """(line or record number, id, messages) of each record."""
    for number, record in _records(path):
        key = record.get("id", record.get("question_id", number))
        if not isinstance(key, int | str):
            raise UserError(f"{path}, record {number}: the id must be a text or a number")
        yield number, key, _messages(path, number, record)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() == ".jsonl":
        yield from read_records(path)
    elif path.suffix.lower() == ".json":
        yield from enumerate(read_list(path, f"objects with {_FORMS}"), 1)
    elif path.suffix.lower() in _OTHER_FORMATS:
        raise UserError(
            f"{path} is a format that is not read: save it as .jsonl, one object a line with {_FORMS}"
        )
    else:
        for number, line in enumerate(_read_text(path).splitlines(), 1):
            if line.strip():
                yield number, {"prompt": line.strip()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; convert it first") from error


def _messages(path: Path, number: int, record: dict[str, Any]) -> list[Message]:
    if isinstance(text := record.get("prompt"), str) and text.strip():
        return [{"role": "user", "content": text}]
    if isinstance(turns := record.get("turns"), list) and turns and all(isinstance(t, str) for t in turns):
        return [{"role": "user", "content": turn} for turn in turns]
    said = record.get("messages", record.get("conversations"))
    if isinstance(said, list) and said and all(isinstance(one, dict) for one in said):
        return [_message(path, number, one) for one in said]
    named = ", ".join(repr(name) for name in record) or "nothing"
    raise UserError(
        f"{path}, record {number} is of no known form: it has {named} and needs {_FORMS}, which must not be"
        " empty"
    )


def _message(path: Path, number: int, said: dict[str, Any]) -> Message:
    speaker, content = said.get("role", said.get("from")), said.get("content", said.get("value"))
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None or not isinstance(content, str):
        raise UserError(
            f"{path}, record {number}: a message needs a known role (user, assistant, system) and a text,"
            f" not {speaker!r} and {type(content).__name__}"
        )
    return {"role": role, "content": content}


def _first_turn(path: Path, number: int, key: Key, messages: list[Message]) -> Prompt:
    """The system's message and the user's first; the others come after the model's own answers."""
    system = [message for message in messages if message["role"] == "system"][:1]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if not asked:
        raise UserError(f"{path}, record {number}: the conversation has no message of the user")
    return Prompt(key, [*system, {"role": "user", "content": asked[0]}], asked[1:])
