"""The settings of a distillation, whether they come from flags or Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medusa_decoding.errors import UserError

Config = TypeVar("Config", bound=BaseModel)
RECORD_SUFFIX = ".config.json"
"""What the name of an answers file's note has more than the file's own."""


class DistillConfig(BaseModel):
    """How a base model answers prompts: those of files, or its own.

    model: as for `load`. prompts: files, see `gather_prompts`. out: the answers file. self_prompts: that many
    prompts that the model writes itself, with self_prompt_temperature, self_prompt_top_p and at most
    self_prompt_tokens tokens. exclude: prompts files whose like is left out, see `Exclusion`. limit: the
    first N prompts only. answers: to each prompt. max_tokens: of an answer. temperature, top_p, seed: see
    `SamplingParameters`; 0 is greedy. batch: sequences per forward pass. max_prompt_tokens: longer prompts
    are left out. hidden: keep the hidden states, in `hidden` beside `out`. engine, device, dtype: of the base
    model. endpoint: the address of an OpenAI-compatible server that answers instead; `model` then only tells
    the tokenizer. endpoint_model: its name there. concurrency: requests at a time. request_timeout: seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    prompts: tuple[Path, ...] = ()
    out: Path
    self_prompts: int | None = Field(None, ge=1)
    self_prompt_temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    self_prompt_top_p: float = Field(1.0, gt=0, le=1)
    self_prompt_tokens: int = Field(128, ge=1)
    exclude: tuple[Path, ...] = ()
    limit: int | None = Field(None, ge=1)
    answers: int = Field(1, ge=1)
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
    endpoint: str | None = Field(None, pattern="^https?://")
    endpoint_model: str | None = None
    concurrency: int = Field(8, ge=1)
    request_timeout: float = Field(120.0, gt=0, allow_inf_nan=False)

    @field_validator("prompts", "exclude", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if not self.prompts and self.self_prompts is None:
            raise ValueError("there is nothing to answer; give --prompts or --self-prompts")
        if self.answers > 1 and self.temperature == 0:
            raise ValueError(f"{self.answers} greedy answers would all be the same; give a --temperature")
        if self.endpoint is None:
            if self.endpoint_model is not None:
                raise ValueError("'endpoint_model' needs an 'endpoint'")
            return self
        if self.self_prompts is not None:
            raise ValueError("'self_prompts' needs the model on this machine; leave the 'endpoint' out")
        if (self.engine, self.device, self.dtype) != ("auto", "auto", "auto"):
            raise ValueError("'engine', 'device' and 'dtype' are the endpoint's own; leave them out")
        return self

    @classmethod
    def of(cls, **fields: Any) -> DistillConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the distillation's settings")

    @property
    def record_path(self) -> Path:
        """Where the settings that decide the answers, and what became of the prompts, are kept."""
        return self.out.with_name(self.out.name + RECORD_SUFFIX)

    @property
    def dropped_path(self) -> Path:
        """Where answers and own prompts that were dropped are kept, so that nobody writes them again."""
        return self.out.with_name(self.out.stem + ".dropped.jsonl")

    @property
    def waiting_path(self) -> Path:
        """Where an endpoint's answers are kept that wait for one before them, until all are written."""
        return self.out.with_name(self.out.stem + ".waiting.jsonl")

    @property
    def self_prompts_path(self) -> Path:
        """Where the model's own prompts are kept; a prompts file itself."""
        return self.out.with_name(self.out.stem + ".self-prompts.jsonl")

    @property
    def cache_folder(self) -> Path:
        """Where the hidden states are kept."""
        return self.out.parent / "hidden"

    def recipe(self) -> dict[str, Any]:
        """The settings that change an answer: a file may only be continued with the same ones."""
        names = {"max_tokens", "temperature", "top_p", "seed", "max_prompt_tokens"}
        if self.self_prompts is not None:
            names |= {"self_prompt_temperature", "self_prompt_top_p", "self_prompt_tokens"}
        return self.model_dump(mode="json", include=names)


def validated(kind: type[Config], fields: dict[str, Any], source: str) -> Config:
    """The config that `fields` describe; pydantic's report becomes one line that names the way out.

    source: where the fields come from, for the message.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: {_explained(kind, error)}") from None


def _explained(kind: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with the first faulty key."""
    # An unknown key first: a misspelt one is also missing.
    fault = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key, section, whole = _place(kind, fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}'; known are {', '.join(section.model_fields)}"
    if fault["type"] == "missing":
        return f"the key '{key}' is missing; give it"
    if fault["type"] == "value_error" and whole:
        return f"{key}{': ' if key else ''}{fault['msg'].removeprefix('Value error, ')}"
    # Of a union there is a message for each branch.
    said = [one["msg"] for one in error.errors() if _place(kind, one["loc"])[0] == key]
    return f"'{key}' cannot be {fault['input']!r}: {'; or '.join(said)}"


def _place(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, type[BaseModel], bool]:
    """The dotted key that pydantic's location means (without the names it gives to a union's branches), the
    section where it stands, and whether it is itself a section.
    """
    names: list[str] = []
    section: type[BaseModel] = kind
    inner: type[BaseModel] | None = kind
    for part in location:
        if inner is None:
            names.extend([str(part)] if isinstance(part, int) else [])
            continue
        section = inner
        names.append(str(part))
        field = section.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        inner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return ".".join(names), section, inner is not None
