"""The settings of a benchmark against other programs."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medusa_decoding.distill.config import validated

SERVER = "server:"
PEERS = (
    "autoregressive",
    "lookup",
    "transformers",
    "transformers-int8",
    "transformers-prompt-lookup",
    "llama.cpp",
    "llama.cpp-lookup",
)


class AgainstConfig(BaseModel):
    """What is compared, and with how much.

    against: names of `PEERS`, or `server:URL`, of which `server:URL#NAME` is the model NAME. max_tokens: of
    an answer. limit: prompts, see `round_robin`. peer_limit: prompts for transformers, which is slow. text:
    whose perplexity tells the quality of weights; by default one that comes with this package. llama_python:
    a Python that has llama-cpp-python. llama_repack: whether llama.cpp may repack weights for this processor.
    patience: seconds to wait for another program's answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    against: tuple[str, ...] = Field(min_length=1)
    max_tokens: int = Field(128, ge=2)
    limit: int | None = Field(None, ge=1)
    peer_limit: int = Field(10, ge=1)
    text: Path | None = None
    llama_python: str = sys.executable
    llama_repack: bool = True
    patience: float = Field(600.0, gt=0, allow_inf_nan=False)

    @field_validator("against", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("against")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in PEERS and not name.startswith((f"{SERVER}http://", f"{SERVER}https://")):
                raise ValueError(_unknown(name))
        return tuple(dict.fromkeys(value))

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the benchmark's settings")


def _unknown(name: str) -> str:
    similar = difflib.get_close_matches(name, PEERS, n=1, cutoff=0.7)
    meant = f", did you mean {similar[0]}?" if similar else ";"
    return f"unknown peer '{name}'{meant} known are {', '.join(PEERS)} and {SERVER}http://HOST:PORT"
