"""The settings of `convert`, whether they come from flags or Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from medusa_decoding.distill.config import validated

Target = Literal["v1", "v2", "vllm", "tgi", "tensorrt-llm", "full"]


class ConvertConfig(BaseModel):
    """Which heads are written, and for whom.

    heads: an alias, packaged heads, a folder or a Hub id; with "hf", a base model. to: the layout, or the
    engine it is for; "hf": the base model itself, as a Hugging Face folder. out: a folder that does not exist
    yet. base: the base model (None: the one the heads name). tree: medusa_choices, or a file of them (None:
    those that `tune` left beside the heads). dtype: of the tensors ("auto": as they are stored; float32 for
    the weights of a GGUF file).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: str
    to: Literal[Target, "hf"]
    out: Path
    base: str | None = None
    tree: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    @classmethod
    def of(cls, **fields: Any) -> ConvertConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the settings of convert")
