"""One text being written, as the loop keeps it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from medusa_decoding.decoding.sampling import SamplingParameters
from medusa_decoding.decoding.stats import Statistics
from medusa_decoding.decoding.tree import BoolArray

FinishReason = Literal["stop", "length"]


class Mask(Protocol):
    """Which tokens may come next in one text, a grammar's for example."""

    def allowed(self, path: Seq[int]) -> BoolArray:
        """(vocabulary,) true for tokens that may follow the text so far and, after it, `path`; at least one.

        `path` holds tokens that are allowed themselves, each after those before it.
        """
        ...

    def advance(self, tokens: Seq[int]) -> None:
        """These tokens have become text."""
        ...


@dataclass(eq=False)
class Sequence:
    """One text being written.

    prompt: token ids, at least one. max_tokens: at least 1; the engine's context may end the text sooner.
    stop_ids: tokens that end the text (they are emitted).
    choice: distinguishes several texts of one prompt and seed. halt: asked with each emitted token whether
    the text ends with it.
    handle, committed: the engine's sequence, and how many tokens of prompt + tokens it already holds; a
    handle given with `committed` tokens of the prompt reuses them (fewer than all: the last one's row has to
    be run for the first token).
    """

    prompt: list[int]
    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    max_tokens: int = 128
    stop_ids: frozenset[int] = frozenset()
    choice: int = 0
    halt: Callable[[int], bool] | None = None
    handle: int | None = None
    committed: int = 0
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    hidden: Any = None
    statistics: Statistics = field(default_factory=Statistics)

    def emit(self, tokens: Seq[int], limit: int) -> list[int]:
        """Append tokens until one ends the text, at the latest the text's `limit`-th; return those that were
        appended.
        """
        for count, token in enumerate(tokens, 1):
            self.tokens.append(token)
            if token in self.stop_ids or (self.halt is not None and self.halt(token)):
                self.finish_reason = "stop"
            elif len(self.tokens) >= limit:
                self.finish_reason = "length"
            if self.finish_reason is not None:
                return list(tokens[:count])
        return list(tokens)
