"""The settings of a distillation, whether they come from flags or Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medusa_decoding.errors import UserError

Config = TypeVar("Config", bound=BaseModel)


class DistillConfig(BaseModel):
    """How a base model answers a file of prompts.

    model: as for `load`. prompts: see `read_prompts`. out: the answers file. limit: the first N prompts only.
    max_tokens: of an answer. temperature, top_p, seed: see `SamplingParameters`; 0 is greedy.
    batch: sequences per forward pass. max_prompt_tokens: longer prompts are left out.
    hidden: keep the hidden states, in `hidden` beside `out`. engine, device, dtype: of the base model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    prompts: Path
    out: Path
    limit: int | None = Field(None, ge=1)
    max_tokens: int = Field(160, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**64)
    batch: int = Field(32, ge=1)
    max_prompt_tokens: int = Field(512, ge=1)
    hidden: bool = True
    engine: Literal["auto", "cpu", "torch"] = "auto"
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def of(cls, **fields: Any) -> DistillConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the distillation's settings")

    @property
    def record_path(self) -> Path:
        """Where the settings that decide the answers are kept, beside them."""
        return self.out.with_name(self.out.name + ".config.json")

    @property
    def cache_folder(self) -> Path:
        """Where the hidden states are kept."""
        return self.out.parent / "hidden"

    def recipe(self) -> dict[str, Any]:
        """The settings that change an answer: a file may only be continued with the same ones."""
        return self.model_dump(
            mode="json", include={"max_tokens", "temperature", "top_p", "seed", "max_prompt_tokens"}
        )


def validated(kind: type[Config], fields: dict[str, Any], source: str) -> Config:
    """The config that `fields` describe; pydantic's report becomes one line that names the way out.

    source: where the fields come from, for the message.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        # An unknown key first: a misspelt one is also missing.
        fault = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise UserError(f"{source}: unknown key '{key}'; known are {known}") from None
        if fault["type"] == "missing":
            raise UserError(f"{source}: the key '{key}' is missing; give it") from None
        if not key:
            raise UserError(f"{source}: {fault['msg'].removeprefix('Value error, ')}") from None
        raise UserError(f"{source}: '{key}' cannot be {fault['input']!r}: {fault['msg']}") from None
