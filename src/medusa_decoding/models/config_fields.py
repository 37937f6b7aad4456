"""Typed access to a model's config in the words of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medusa_decoding.errors import UserError


@dataclass(frozen=True)
class Fields:
    """A config; every method raises `UserError` for a missing value without a default and for a wrong one.

    null counts as missing, as it does in transformers wherever a value has to be there.

    Attributes:
        values: the config.
        name: what the user called the model.
    """

    values: Mapping[str, Any]
    name: str

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def wrong(self, key: str) -> UserError:
        """The error of a value that makes no sense."""
        found = f"says {self.values[key]!r}" if key in self else "says nothing"
        text = f"the config of {self.name} {found[:100]} for {key!r}, which makes no sense; download it again"
        return UserError(text)

    def number(self, key: str, default: float | None = None) -> float:
        """The finite number under `key`."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.wrong(key)
        return float(value)

    def positive(self, key: str, default: int | None = None) -> int:
        """The integer above zero under `key`."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """The text under `key`."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """The truth value under `key`."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key)
        return value

    def table(self, key: str) -> dict[str, Any]:
        """The object under `key`; empty if there is none."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key)
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value
