"""Prompts too much like those of an evaluation: heads must not learn from what they are measured on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from medusa_decoding.distill.prompts import Message, Prompt, read_conversations

GRAM = 8
FEW, SHARE = 2, 0.05
"""In more conversations of a file than both, words are its instructions."""
_WORD = re.compile(r"\w+")


class Exclusion:
    """The 8-grams of words in some prompts files, and their shorter messages whole.

    files: as for `read_prompts`; the assistant's messages in them count too. Words are compared without
    case and punctuation. What more than two conversations of a file and more than a twentieth of them share
    is its instructions ("Complete this function. Answer with ..."), which tell nothing of the evaluation.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._grams: set[tuple[str, ...]] = set()
        for path in files:
            found: Counter[tuple[str, ...]] = Counter()
            conversations = 0
            for _, messages in read_conversations(path):
                conversations += 1
                said = _said(messages, "user", "assistant")
                found.update({gram for text in said for gram in _grams(text)})
            most = max(FEW, SHARE * conversations)
            self._grams.update(gram for gram, count in found.items() if count <= most)

    def covers(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts shares an 8-gram with the files, or is as short and the same."""
        return any(gram in self._grams for text in texts for gram in _grams(text))

    def covers_prompt(self, prompt: Prompt) -> bool:
        """Whether one of the user's messages, later ones too, does."""
        return bool(self._grams) and self.covers([*_said(prompt.messages, "user"), *prompt.later])


def _said(messages: Iterable[Message], *roles: str) -> Iterator[str]:
    # Never the system's words: they are the same in many files.
    return (str(message["content"]) for message in messages if message["role"] in roles)


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    if 0 < len(words) < GRAM:
        yield tuple(words)
    for start in range(len(words) - GRAM + 1):
        yield tuple(words[start : start + GRAM])
