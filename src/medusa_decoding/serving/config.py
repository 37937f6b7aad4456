"""Settings of the server, in one place."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medusa_decoding.errors import UserError


class ServeConfig(BaseModel):
    """Where and to whom a model is served, and within which bounds.

    host, port: 0 takes a free port. api_key: every route but /health needs it. name: by which requests ask
    for the model. max_sequences: texts written at a time. max_queue: texts that may wait. context: most
    tokens of prompt and text together; the model's own by default. max_body: bytes of a request.
    drain_seconds: how long running texts may go on when the server is told to stop.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_key: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)
    max_sequences: int = Field(8, ge=1, le=1024)
    max_queue: int = Field(64, ge=0)
    context: int | None = Field(None, ge=2)
    max_body: int = Field(4 * 2**20, ge=1024)
    drain_seconds: int = Field(60, ge=0)

    @classmethod
    def of(cls, **fields: object) -> ServeConfig:
        """Settings from fields; raises UserError naming the one at fault."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            fault = error.errors()[0]
            flag = "--" + ".".join(map(str, fault["loc"])).replace("_", "-")
            shown = "" if "key" in flag else f" {fault['input']!r}"
            raise UserError(f"{flag}{shown}: {fault['msg'][:1].lower()}{fault['msg'][1:]}") from None
