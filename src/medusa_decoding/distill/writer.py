"""Writes answers and their hidden states so that a kill at any moment loses no more than the last flush."""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor

from medusa_decoding.distill.answers import JsonObject, append_records
from medusa_decoding.distill.hidden_cache import HiddenCache

FLUSH_SECONDS = 20.0


class AnswerWriter:
    """Collects finished answers and puts them on the disk several times a minute.

    The shard of hidden states is written before the records: an answer that is in the file has its states.
    cache: None keeps no hidden states.
    """

    def __init__(self, out: Path, cache: HiddenCache | None) -> None:
        self._out, self._cache = out, cache
        self._records: list[JsonObject] = []
        self._states: dict[str, Tensor] = {}
        self._flushed = time.monotonic()

    def add(self, record: JsonObject, states: Tensor | None) -> None:
        """Take a finished answer with its (n, D) hidden states."""
        self._records.append(record)
        if states is not None:
            self._states[str(record["id"])] = states

    def flush_if_due(self) -> None:
        """Flush where the last time is long enough ago."""
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; it is on the disk afterwards."""
        self._flushed = time.monotonic()
        if not self._records:
            return
        if self._cache is not None:
            self._cache.write(self._states)
        append_records(self._out, self._records)
        self._records, self._states = [], {}
