"""The rule that the stand-in's texts follow, and the settings that a model is loaded with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

RULE_VOCABULARY = 4096


def rule(tokens: list[int]) -> Any:
    """(vocabulary,) logits after `tokens`. Texts go round in circles of ten now and then."""
    chosen = (sum(tokens) * 7 + len(tokens)) % 17 if len(tokens) % 23 < 5 else tokens[-10 % len(tokens)]
    logits = np.sin(np.arange(RULE_VOCABULARY) * (1 + tokens[-1]))
    logits[chosen] += 5
    return logits


def llama_model_default_params() -> SimpleNamespace:
    return SimpleNamespace(use_extra_bufts=True)
