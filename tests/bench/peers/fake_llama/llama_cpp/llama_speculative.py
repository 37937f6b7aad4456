"""A drafter that finds the last two tokens again."""

from __future__ import annotations

from typing import Any


class LlamaPromptLookupDecoding:
    def __init__(self, num_pred_tokens: int) -> None:
        self.count = num_pred_tokens

    def __call__(self, tokens: Any) -> Any:
        for place in range(len(tokens) - 3, -1, -1):
            if (tokens[place : place + 2] == tokens[-2:]).all():
                return tokens[place + 2 : place + 2 + self.count]
        return tokens[:0]
