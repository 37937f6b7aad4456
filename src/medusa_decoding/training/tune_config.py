"""The settings of `tune`, whether they come from flags or Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medusa_decoding.distill.config import validated

SamplingTemperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TuneConfig(BaseModel):
    """How heads are measured and calibrated.

    model, heads, engine, weights, threads, device, dtype: as for `load`. prompts: a file that the model
    answers now, once at each of `temperatures`; see `read_prompts`. data: answers of `distill`, at the
    temperature they were written with, instead; one of the two is needed. out: a folder for a calibrated copy
    of the heads (None: the heads' own folder). nodes: of the static tree, its root included. limit: prompts
    (None: 64), or answers of `data` (None: all). max_tokens: of an answer to a prompt. batch: prompts
    answered at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    heads: str = "auto"
    prompts: Path | None = None
    data: Path | None = None
    out: Path | None = None
    nodes: int = Field(16, ge=2)
    temperatures: tuple[SamplingTemperature, ...] = Field((0.0, 0.7, 1.0), min_length=1)
    limit: int | None = Field(None, ge=1)
    max_tokens: int = Field(128, ge=2)
    batch: int = Field(16, ge=1)
    seed: int = Field(0, ge=0, lt=2**64)
    engine: Literal["auto", "cpu", "torch"] = "auto"
    weights: Literal["int8", "fp32"] = "int8"
    threads: int | None = Field(None, ge=1)
    device: str = "auto"
    dtype: str = "auto"

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.prompts is None) == (self.data is None):
            raise ValueError("give either prompts, which the model answers, or data, its kept answers")
        return self

    @classmethod
    def of(cls, **fields: Any) -> TuneConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the settings of tune")
