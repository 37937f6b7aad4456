"""Writes answers and their hidden states so that a kill at any moment loses no more than the last flush."""

from __future__ import annotations

import time

from torch import Tensor

from medusa_decoding.distill.answers import JsonObject, append_records
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.generation.loops import is_loop

FLUSH_SECONDS = 20.0


class AnswerWriter:
    """Collects finished answers and puts them on the disk several times a minute.

    The shard of hidden states is written before the records: an answer that is in the file has its states.
    cache: None keeps no hidden states.
    """

    def __init__(self, config: DistillConfig, cache: HiddenCache | None) -> None:
        self._out, self._dropped_path, self._cache = config.out, config.dropped_path, cache
        self._records: list[JsonObject] = []
        self._dropped: list[JsonObject] = []
        self._states: dict[str, Tensor] = {}
        self._flushed = time.monotonic()

    def add(self, record: JsonObject, states: Tensor | None) -> bool:
        """Take a finished answer with its (n, D) hidden states; false where it is dropped as a loop."""
        if is_loop(record["answer_ids"]):
            self.drop(record["id"], "loop", record["answer"])
            return False
        self._records.append(record)
        if states is not None:
            self._states[str(record["id"])] = states
        return True

    def drop(self, key: int | str, reason: str, text: str) -> None:
        """Note that there is no answer to a prompt, and why; text: what the model said."""
        self._dropped.append({"id": key, "reason": reason, "text": text})

    def flush_if_due(self) -> None:
        """Flush where the last time is long enough ago."""
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; it is on the disk afterwards."""
        self._flushed = time.monotonic()
        if self._dropped:
            append_records(self._dropped_path, self._dropped)
            self._dropped = []
        if not self._records:
            return
        if self._cache is not None:
            self._cache.write(self._states)
        append_records(self._out, self._records)
        self._records, self._states = [], {}
