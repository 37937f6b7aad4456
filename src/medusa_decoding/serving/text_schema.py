"""The JSON schemas that texts can be held to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from medusa_decoding.serving.wire import whole

_Type = Literal["null", "boolean", "integer", "number", "string", "array", "object"]
_Format = Literal[
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid"
]  # fmt: skip
_Count = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(whole)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Schemas = Annotated[list["TextSchema | bool"], Field(min_length=1)]
_ByName = dict[str, "TextSchema | bool"]
UNSUPPORTED = (
    "contains", "dependencies", "dependentRequired", "dependentSchemas", "else", "if", "maxContains",
    "minContains", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
)  # fmt: skip
"""Keywords of JSON Schema that the compiler of grammars refuses; other names it passes over."""


def _forbid(properties: dict[str, Any]) -> None:
    properties.update(dict.fromkeys(UNSUPPORTED, False))


class TextSchema(BaseModel):
    """A JSON schema, by the keywords that texts are held to; other names are notes.

    A schema that no text fits is refused, as are patterns and references that cannot be read.
    """

    model_config = ConfigDict(
        extra="allow", strict=True, json_schema_extra=lambda it: _forbid(it["properties"])
    )

    type: _Type | Annotated[list[_Type], Field(min_length=1)] = "object"
    enum: Annotated[list[Any], Field(min_length=1)] = []
    const: Any = None
    any_of: _Schemas = Field([], alias="anyOf")
    all_of: _Schemas = Field([], alias="allOf")
    one_of: _Schemas = Field([], alias="oneOf", description="Alternatives that exclude each other.")
    reference: str = Field("", alias="$ref", description="A place in this schema.", pattern="^#")
    places: _ByName = Field({}, alias="$defs")
    definitions: _ByName = {}
    properties: _ByName = {}
    pattern_properties: _ByName = Field(
        {}, alias="patternProperties", json_schema_extra={"propertyNames": {"format": "regex"}}
    )
    additional_properties: TextSchema | bool = Field(True, alias="additionalProperties")
    required: list[str] = []
    least_properties: _Count = Field(0, alias="minProperties")
    most_properties: _Count = Field(0, alias="maxProperties")
    items: TextSchema | bool | list[TextSchema | bool] = True
    first_items: list[TextSchema | bool] = Field([], alias="prefixItems")
    least_items: _Count = Field(0, alias="minItems")
    most_items: _Count = Field(0, alias="maxItems")
    least_length: _Count = Field(0, alias="minLength")
    most_length: _Count = Field(0, alias="maxLength")
    pattern: str = Field("", json_schema_extra={"format": "regex"})
    format: _Format = "unknown"
    minimum: _Number = 0
    maximum: _Number = 0
    above: bool | _Number = Field(False, alias="exclusiveMinimum")
    below: bool | _Number = Field(False, alias="exclusiveMaximum")
    multiple_of: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(1, alias="multipleOf")

    def as_json(self) -> dict[str, Any]:
        """As it was written."""
        return self.model_dump(by_alias=True, exclude_unset=True, warnings=False)
