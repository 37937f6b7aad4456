"""The settings of a server's benchmark."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medusa_decoding.distill.config import validated


class ServerBenchConfig(BaseModel):
    """How an OpenAI-compatible server is measured.

    server: its address; `/v1` is added where there is no path. model: the server's name for the model; None
    takes the only one it has. concurrency: closed loop, with so many conversations at a time, one level
    after the other. rate: open loop instead, with so many conversations begun per second, at times of a
    Poisson process. max_tokens: of an answer. temperature, top_p, seed: as the API has them; the seed also
    decides the times of the open loop. limit: questions, see `round_robin`. request_timeout: seconds without
    a word from the server.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    server: str = Field(pattern="^https?://[^/]")
    model: str | None = None
    concurrency: tuple[int, ...] = (1, 2, 4, 8)
    rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    max_tokens: int = Field(128, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**63)
    limit: int | None = Field(None, ge=1)
    request_timeout: float = Field(120.0, gt=0, allow_inf_nan=False)

    @field_validator("concurrency", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("concurrency")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1:
            raise ValueError("give numbers of at least 1, such as 1,2,4,8")
        return value

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if self.rate is not None and "concurrency" in self.model_fields_set:
            raise ValueError("'concurrency' and 'rate' are two ways to put load on a server; give one")
        return self

    @classmethod
    def of(cls, **fields: Any) -> ServerBenchConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the benchmark's settings")

    @property
    def url(self) -> str:
        """Where the API begins, without a slash at the end."""
        url = self.server.rstrip("/")
        return url if "/" in url.partition("://")[2] else f"{url}/v1"
