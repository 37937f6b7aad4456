"""What only transformers can read of a folder's tokenizer; it imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from medusa_decoding.models.quiet import quiet

# Nothing that a checkpoint brings along is ever run.
_SAFE = {"trust_remote_code": False}


def tokenizer_of(folder: Path) -> Any:
    """The transformers tokenizer in `folder`."""
    with quiet():
        return AutoTokenizer.from_pretrained(str(folder), **_SAFE)


def eos_of(folder: Path) -> int | list[int] | None:
    """The end tokens of the config in `folder`, or those that its class has."""
    with quiet():
        config = AutoConfig.from_pretrained(str(folder), **_SAFE)
    return getattr(config.get_text_config(), "eos_token_id", None)
