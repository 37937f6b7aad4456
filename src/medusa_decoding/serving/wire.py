"""The rules that hold for every object of a request."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

DEEPEST = 64
"""Levels of JSON that a schema or a call's arguments may have."""


class Wire(BaseModel):
    """An object of a request: wrong types and unknown fields are refused.

    But null means the default everywhere, and unknown fields may be there if they are empty or ask, by
    `NEUTRAL`, for what is done anyway: clients send back what they got, and all fields they know.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _only_what_says_something(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {
            name: value
            for name, value in data.items()
            if value is not None and (name in known or not cls._says_nothing(name, value))
        }

    @classmethod
    def _says_nothing(cls, name: str, value: Any) -> bool:
        neutral = ("", [], {}, *cls.NEUTRAL.get(name, ()))
        return any(value == one and type(value) is type(one) for one in neutral)


def is_too_deep(value: Any) -> bool:
    """Whether a JSON value has more than `DEEPEST` levels, which would exhaust who walks it recursively."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True
