"""Two texts of one prompt: the same, or where they part and how near the base model's choice was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medusa_decoding.bench.reading import logits_after
from medusa_decoding.decoding import Engine
from medusa_decoding.decoding.tree import FloatArray


@dataclass(frozen=True)
class Difference:
    """The first place where two texts differ.

    token_index: counted from 0, the token of the prefill included. tokens: both ids, the plain text's
    first; None where a text had ended. probabilities: of both, by the base model's softmax (no temperature,
    no truncation) in a plain forward pass over the common beginning. gap: by how much they differ.
    """

    token_index: int
    tokens: tuple[int | None, int | None]
    probabilities: tuple[float | None, float | None]

    @property
    def gap(self) -> float | None:
        """Difference of the two probabilities, at least 0; None where one of the texts had ended."""
        first, second = self.probabilities
        return None if first is None or second is None else abs(first - second)


def first_difference(
    engine: Engine, prompt: Sequence[int], plain: Sequence[int], other: Sequence[int]
) -> Difference | None:
    """Where `other` leaves `plain`, both token ids written after `prompt`; None if they are the same."""
    place = common_length(plain, other)
    tokens = tuple(text[place] if place < len(text) else None for text in (plain, other))
    if tokens == (None, None):
        return None
    chances = next_token_probabilities(engine, [*prompt, *plain[:place]])
    first, second = (None if token is None else float(chances[token]) for token in tokens)
    return Difference(place, (tokens[0], tokens[1]), (first, second))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    shorter = min(len(first), len(second))
    return next((place for place in range(shorter) if first[place] != second[place]), shorter)


def next_token_probabilities(engine: Engine, tokens: Sequence[int]) -> FloatArray:
    """(vocabulary,) the base model's softmax after `tokens`, from a forward pass without any tree."""
    [logits] = logits_after(engine, tokens, len(tokens) - 1)
    weights = np.exp(logits - logits.max())
    chances: FloatArray = weights / weights.sum()
    return chances
