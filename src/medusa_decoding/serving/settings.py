"""What the scheduler may be told: how much it takes on, and what it keeps."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SchedulerSettings(BaseModel):
    """Limits of the scheduler.

    max_sequences: texts that are written at once; others wait. max_queue: texts that may wait.
    context: most tokens of prompt and text together; by default the model's. kv_memory: GB for keys and
    values; by default half of what is free. prefix_tokens: tokens of finished texts whose keys and values are
    kept for prompts that begin the same (0: none). prefill_rows: the most tokens of all prompts that are
    read in one step; the scheduler reads fewer where a step would take too long.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_sequences: int = Field(default=32, ge=1)
    max_queue: int = Field(default=128, ge=0)
    context: int | None = Field(default=None, ge=2)
    kv_memory: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    prefix_tokens: int = Field(default=8192, ge=0)
    prefill_rows: int = Field(default=64, ge=1)
