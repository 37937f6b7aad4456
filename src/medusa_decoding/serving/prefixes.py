"""Keys and values of finished texts, for prompts that begin as they did: with a system prompt, or a chat's
history.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medusa_decoding.decoding.sequence import common_length

BLOCK = 16
"""Texts are found by their beginnings of so many tokens, twice as many, and so on; less is not worth it."""


@dataclass(eq=False)
class Kept:
    """A text that is kept: the engine's handle, which belongs to it, and the tokens it holds."""

    handle: int
    tokens: list[int]


class KeptPrefixes:
    """Texts that are kept, at most `most` tokens together; the least recently used go first.

    Forks share memory with their origin, so a text may be used by many and outlived by them. Engines that
    cannot fork keep nothing. To be used in the engine's thread only.
    """

    def __init__(self, engine: Any, most: int) -> None:
        self._engine = engine
        self.most = most if hasattr(engine, "fork") else 0
        self._kept: OrderedDict[Kept, None] = OrderedDict()
        self._by_beginning: dict[int, dict[Kept, None]] = {}

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(kept.tokens) for kept in self._kept]

    def find(self, prompt: Sequence[int]) -> tuple[Kept | None, int]:
        """The text that shares the longest beginning with `prompt`, its last token left out, and the length
        of that; 0 where it would be less than a block.
        """
        found: Kept | None = None
        for key in _beginnings(prompt[:-1]):
            if key not in self._by_beginning:
                break
            found = next(reversed(self._by_beginning[key]))
        shared = 0 if found is None else common_length(found.tokens, prompt[:-1])
        # Different beginnings may have one hash: the tokens themselves decide.
        return (found, shared) if shared >= BLOCK else (None, 0)

    def fork(self, kept: Kept, length: int) -> int:
        """A new sequence with the first `length` tokens of a text that is kept."""
        self._kept.move_to_end(kept)
        return int(self._engine.fork(kept.handle, length))

    def keep(self, handle: int, tokens: list[int]) -> None:
        """Take over a sequence that holds `tokens`, or close it where that is not worth it.

        Texts that are the beginning of this one are no longer needed.
        """
        known, shared = self.find([*tokens, -1])
        if not BLOCK <= len(tokens) <= self.most or shared == len(tokens):
            self._engine.close(handle)
            return
        if known is not None and shared == len(known.tokens):
            self._drop(known)
        while self._kept and sum(self.lengths) + len(tokens) > self.most:
            self.evict()
        kept = Kept(handle, tokens)
        self._kept[kept] = None
        for key in _beginnings(tokens):
            self._by_beginning.setdefault(key, {})[kept] = None

    def evict(self) -> bool:
        """Close the least recently used text; false where there is none."""
        if not self._kept:
            return False
        self._drop(next(iter(self._kept)))
        return True

    def clear(self) -> None:
        """Close all of them."""
        while self.evict():
            pass

    def _drop(self, kept: Kept) -> None:
        del self._kept[kept]
        for key in _beginnings(kept.tokens):
            texts = self._by_beginning.get(key, {})
            texts.pop(kept, None)
            if not texts:
                self._by_beginning.pop(key, None)
        self._engine.close(kept.handle)


def _beginnings(tokens: Sequence[int]) -> Iterator[int]:
    """A hash of each beginning of whole blocks, the shortest first."""
    key = 0
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        key = hash((key, tuple(tokens[start : start + BLOCK])))
        yield key
