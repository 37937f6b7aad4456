"""Typed access to a GGUF file's metadata."""

from __future__ import annotations

import math
from typing import Any

from medusa_decoding.models.gguf_reader import GgufFile


class Keys:
    """The metadata of one file; keys of its architecture are given without the architecture's name in front.

    Every method raises `UserError` for a missing key without a default, and for a value of another type.
    """

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = self.text("general.architecture")

    def __contains__(self, key: str) -> bool:
        return self._full(key) in self.file.metadata

    def text(self, key: str, default: str | None = None) -> str:
        """The text under `key`."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.file.damaged(f"no text under {key!r}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """The integer under `key`; it counts something, so it is not negative."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.file.damaged(f"no count under {key!r}")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        """The integer above zero under `key`."""
        value = self.integer(key, default)
        if value == 0:
            raise self.file.damaged(f"zero under {key!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The finite number under `key`."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.file.damaged(f"no number under {key!r}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """The truth value under `key`."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.file.damaged(f"no truth value under {key!r}")
        return value

    def token_id(self, name: str, vocabulary: int) -> int | None:
        """The id of the special token `name` ("bos", "eos", "padding", ...), if the file names one."""
        key = f"tokenizer.ggml.{name}_token_id"
        if key not in self:
            return None
        token = self.integer(key)
        if token >= vocabulary:
            raise self.file.damaged(f"its {name} token {token} is not in the vocabulary")
        return token

    def values(self, key: str, kind: type) -> list[Any]:
        """The list under `key`, every element of type `kind`."""
        found = self._get(key, None)
        if not isinstance(found, list) or not all(type(value) is kind for value in found):
            raise self.file.damaged(f"no list of {kind.__name__} under {key!r}")
        return found

    def _full(self, key: str) -> str:
        return key if key.startswith(("general.", "tokenizer.", "split.")) else f"{self.architecture}.{key}"

    def _get(self, key: str, default: Any) -> Any:
        return self.file.metadata.get(self._full(key), default)
