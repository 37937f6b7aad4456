"""What only transformers can read of a folder's tokenizer; it imports torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from medusa_decoding.models.quiet import quiet

# Nothing that a checkpoint brings along is ever run.
_SAFE = {"trust_remote_code": False}


def tokenizer_of(folder: Path) -> Any:
    """The transformers tokenizer in `folder`."""
    with quiet():
        return AutoTokenizer.from_pretrained(str(folder), **_SAFE)


def ends_of(folder: Path) -> set[int]:
    """End tokens that the config and the generation config name."""
    with quiet():
        config = AutoConfig.from_pretrained(str(folder), **_SAFE)
        ends = _as_set(getattr(config.get_text_config(), "eos_token_id", None))
        with contextlib.suppress(OSError):  # generation_config.json is optional
            ends |= _as_set(GenerationConfig.from_pretrained(str(folder)).eos_token_id)
    return ends


def _as_set(eos: int | list[int] | None) -> set[int]:
    if eos is None:
        return set()
    return {eos} if isinstance(eos, int) else set(eos)
