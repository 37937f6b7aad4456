"""Answers of an endpoint that wait for one before them, kept so that nobody asks for them twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medusa_decoding.distill.answers import JsonObject, append_records, cut_torn_line, read_records


class WaitingAnswers:
    """Records of finished answers, in the order in which they came.

    The answers file has its prompts' order, so an answer may have to wait for a slower one; a run that is
    stopped meanwhile leaves it here. path: their file, which is gone once no answer waits any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, JsonObject] = {}
        if path.is_file():
            cut_torn_line(path)
            self._kept = {str(record.get("id")): record for _, record in read_records(path)}

    def answer_to(self, name: int | str, prompt_ids: list[int]) -> JsonObject | None:
        """The record of that name, if it answers these very tokens."""
        record = self._kept.get(str(name))
        return record if record is not None and record.get("prompt_ids") == prompt_ids else None

    def keep(self, records: Iterable[JsonObject]) -> None:
        """Put on the disk those that are not there yet."""
        fresh = [one for one in records if self.answer_to(one["id"], one["prompt_ids"]) is None]
        if fresh:
            append_records(self._path, fresh)
            self._kept.update((str(one["id"]), one) for one in fresh)

    def clear(self) -> None:
        """None waits any more."""
        self._path.unlink(missing_ok=True)
        self._kept = {}
