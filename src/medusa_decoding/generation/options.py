"""What may be asked of one generation: the one place where its settings are named and checked."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medusa_decoding.decoding import SamplingParameters
from medusa_decoding.errors import UserError


class GenerationOptions(BaseModel):
    """Settings of one generation. The defaults are greedy decoding of up to 256 tokens.

    max_tokens: most tokens to write. temperature ... seed: see `SamplingParameters`.
    stop: strings that end the text; they are not part of it. ignore_eos: write on after the end-of-text
    token.
    raw: give the prompt to the model as it is, without chat template.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    presence_penalty: float = Field(0.0, allow_inf_nan=False)
    frequency_penalty: float = Field(0.0, allow_inf_nan=False)
    logit_bias: dict[int, float] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, lt=2**64)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    raw: bool = False

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not text for text in value):
            raise ValueError("a stop string must not be empty")
        return value

    @classmethod
    def of(cls, options: GenerationOptions | None, fields: dict[str, Any]) -> GenerationOptions:
        """`options` with some fields replaced.

        Raises UserError naming a field that is unknown or out of range.
        """
        try:
            return cls.model_validate({**(options.model_dump() if options else {}), **fields})
        except ValidationError as error:
            raise UserError(describe(error)) from None

    @property
    def sampling(self) -> SamplingParameters:
        """The part that concerns the choice of a token."""
        shared = SamplingParameters.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return SamplingParameters(**{name: getattr(self, name) for name in shared})


def describe(error: ValidationError) -> str:
    """The first fault of a settings object in one line: the field, its value, what it should be."""
    fault = error.errors()[0]
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown setting '{name}'; known are {', '.join(sorted(GenerationOptions.model_fields))}"
    return f"{name} cannot be {fault['input']!r}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
