"""Settings of the server, in one place."""

from __future__ import annotations

from pydantic import Field, ValidationError

from medusa_decoding.errors import UserError
from medusa_decoding.serving.settings import SchedulerSettings


class ServeConfig(SchedulerSettings):
    """Where and to whom a model is served, and within which bounds; the scheduler's are `SchedulerSettings`.

    host, port: 0 takes a free port. api_key: every route but /health needs it. name: by which requests ask
    for the model. max_body: bytes of a request. drain_seconds: how long running texts may go on when the
    server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: str | None = Field(default=None, min_length=1)
    name: str | None = Field(default=None, min_length=1)
    max_body: int = Field(default=4 * 2**20, ge=1024)
    drain_seconds: int = Field(default=60, ge=0)

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
