"""What a text says about its own next token: the longest end of it that stood there before.

A context tree, as in prediction by partial matching (Cleary and Witten, 1984), over the last `ORDER` tokens.
Contexts that were seen once are kept at the shortest length that tells them from all others; the text itself
says how they go on to the left. So a token adds few entries, and memory grows with the text's length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ORDER = 8
"""The longest context that is told from others; where several are the same so far, the latest stands for
them.
"""
LONGEST = 32
"""The longest match that is measured."""


class Match(NamedTuple):
    """An end of a text that stood in it before.

    place: index of the token that followed the latest time. length: of the match, at most LONGEST. streak:
    how many times, counted back from the latest, that same token followed. other: index of the token that
    followed the time before those; -1 if there was none. Streak and other are those of the longest context
    of at most ORDER tokens.
    """

    place: int
    length: int
    streak: int
    other: int


class SuffixIndex:
    """The index of one text, which only grows.

    >>> index = SuffixIndex([1, 2, 3, 1, 2, 4, 1, 2, 4, 9, 1, 2])
    >>> index.find(index.end)
    Match(place=8, length=2, streak=2, other=2)
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens: list[int] = []
        # Per context: where the token stands that followed last, how often in a row it did, where another
        # one stands that followed before.
        self._contexts: dict[tuple[int, ...], tuple[int, int, int]] = {}
        for token in tokens:
            self.append(token)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def end(self) -> list[int]:
        """The last tokens of the text, as many as `find` looks at."""
        return self.tokens[-LONGEST:]

    def append(self, token: int) -> None:
        """Add a token to the text. Takes at most ORDER steps, usually two or three."""
        tokens, contexts, place = self.tokens, self._contexts, len(self.tokens)
        for size in range(1, min(ORDER, place) + 1):
            context = tuple(tokens[place - size : place])
            known = contexts.get(context)
            if known is None:
                contexts[context] = (place, 1, -1)
                break
            before, streak, other = known
            if streak == 1 and other < 0 and size < ORDER and before > size:
                # Seen once so far: from now on one more token tells the two apart.
                contexts[tuple(tokens[before - size - 1 : before])] = known
            same = tokens[before] == token
            contexts[context] = (place, streak + 1, other) if same else (place, 1, before)
        tokens.append(token)

    def find(self, end: Sequence[int]) -> Match | None:
        """The longest match of `end`, the last tokens of the text and perhaps of guesses after it."""
        known, size, width = None, 0, len(end)
        for longer in range(1, min(ORDER, width) + 1):
            found = self._contexts.get(tuple(end[width - longer :]))
            if found is None:
                break
            known, size = found, longer
        if known is None:
            return None
        place, streak, other = known
        most = min(LONGEST, width, place)
        while size < most and self.tokens[place - size - 1] == end[width - size - 1]:
            size += 1
        return Match(place, size, streak, other)
