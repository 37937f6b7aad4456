"""One text being written, as the loop keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from medusa_decoding.decoding.masking import Mask as Mask
from medusa_decoding.decoding.masking import RememberedMask
from medusa_decoding.decoding.sampling import SamplingParameters
from medusa_decoding.decoding.stats import Statistics

FinishReason = Literal["stop", "length"]


@dataclass(eq=False)
class Sequence:
    """One text being written.

    prompt: token ids, at least one. max_tokens: at least 1; the engine's context may end the text sooner.
    stop_ids: tokens that end the text (they are emitted).
    choice: distinguishes several texts of one prompt and seed. halt: asked with each emitted token whether
    the text ends with it.
    mask: which tokens may come next. rows: of the draft tree, the root included (1: no guesses), where the
    planner is not to decide. logprobs: give each token's log-probability and those of so many likeliest.
    error: what ended the text before its time, see `Decoder`.
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
    mask: Mask | None = None
    rows: int | None = None
    logprobs: int | None = None
    handle: int | None = None
    committed: int = 0
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    hidden: Any = None
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        if self.mask is not None:
            self.mask = RememberedMask(self.mask)

    @property
    def is_argmax(self) -> bool:
        """Whether each token is the argmax of the base model's own logits."""
        return self.mask is None and self.sampling.is_argmax

    @contextmanager
    def faults(self, isolate: bool) -> Iterator[None]:
        """Let nothing out but keep it as the sequence's `error`, if `isolate`."""
        try:
            yield
        except Exception as error:
            if not isolate:
                raise
            self.error = error

    def emit(self, tokens: Seq[int], limit: int) -> list[int]:
        """Append tokens until one ends the text, at the latest the text's `limit`-th, and tell the mask;
        return those that were appended.
        """
        for count, token in enumerate(tokens, 1):
            self.tokens.append(token)
            if token in self.stop_ids or (self.halt is not None and self.halt(token)):
                self.finish_reason = "stop"
            elif len(self.tokens) >= limit:
                self.finish_reason = "length"
            if self.finish_reason is not None:
                return list(tokens[:count])
        if self.mask is not None:
            self.mask.advance(tokens)
        return list(tokens)


def common_length(first: Seq[int], second: Seq[int]) -> int:
    """Length of the common beginning of two texts."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
