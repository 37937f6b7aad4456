"""The rules that hold for every object of a request."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

DEEPEST = 64
"""Levels of JSON that a schema or a call's arguments may have."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values that ask for nothing."""


class Wire(BaseModel):
    """An object of a request: wrong types and unknown fields are refused.

    But null means the default everywhere, and unknown fields may be there if they are empty or ask, by
    `NEUTRAL`, for what is done anyway: clients send back what they got, and all fields they know.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}
    TOGETHER: ClassVar[tuple[dict[str, Any], ...]] = ()
    """What validators demand of several fields at once, as JSON schemas for the API's description."""

    @model_validator(mode="before")
    @classmethod
    def _only_what_says_something(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {
            name: whole(value)
            for name, value in data.items()
            if value is not None and (name in known or not cls._says_nothing(name, value))
        }

    @classmethod
    def _says_nothing(cls, name: str, value: Any) -> bool:
        neutral = (*_EMPTY, *cls.NEUTRAL.get(name, ()))
        return any(value == one and type(value) is type(one) for one in neutral)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The object in the API's description, with the rules above: null and what asks for nothing."""
        found = handler(core)
        described = handler.resolve_ref_schema(found)
        fields: dict[str, Any] = described.setdefault("properties", {})
        for name in fields.keys() - set(described.get("required", ())):
            fields[name] = _or_null(fields[name])
        for name, values in cls.NEUTRAL.items():
            fields[name] = {"enum": [*_EMPTY, *values], "description": "Not supported: these change nothing."}
        described["additionalProperties"] = {"enum": list(_EMPTY)}
        if cls.TOGETHER:
            described["allOf"] = list(cls.TOGETHER)
        return found


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """A field's description, null allowed."""
    kinds = field.get("anyOf", ())
    if {"type": "null"} in kinds:
        return field
    notes = ("title", "description", "default")
    outside: dict[str, Any] = {name: field[name] for name in notes if name in field}
    inside = {name: value for name, value in field.items() if name not in outside}
    return {**outside, "anyOf": [*(kinds if set(inside) == {"anyOf"} else [inside]), {"type": "null"}]}


def whole(value: Any) -> Any:
    """A number without fraction, or a list of such, as integers: JSON does not tell 1 from 1.0."""
    if isinstance(value, list):
        return [whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
