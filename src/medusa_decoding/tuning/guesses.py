"""What a drafter guesses in texts that are already written, and which of its guesses are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medusa_decoding.decoding import Context, Drafter
from medusa_decoding.decoding.tree import BoolArray, FloatArray, IntArray

ENDED = -1
"""Rank where the text had ended: there was nothing to guess."""
_CONTEXTS = 64


@dataclass(frozen=True)
class Guesses:
    """N places in texts at which a drafter of K heads guessed R tokens a head.

    probabilities: (N, K, R) of each guess, likeliest first, as the drafter gives them.
    ranks: (N, K) place of the right token among the head's guesses, R where it is none of them, ENDED where
    the text had ended.
    texts: (N,) number of the text.
    """

    probabilities: FloatArray
    ranks: IntArray
    texts: IntArray

    def __len__(self) -> int:
        return len(self.ranks)

    @property
    def heads(self) -> int:
        """K."""
        return int(self.ranks.shape[1])

    @property
    def choices(self) -> int:
        """R."""
        return int(self.probabilities.shape[2])

    def asked(self) -> BoolArray:
        """(N, K) whether the head had something to guess."""
        return np.asarray(self.ranks != ENDED, np.bool_)

    def whole(self) -> BoolArray:
        """(N,) whether all heads had something to guess."""
        return np.asarray(self.asked().all(1), np.bool_)

    def on_path(self) -> BoolArray:
        """(N, K) whether the head had something to guess and all heads before it were right at their first
        choice: where its guess decides whether a path goes on.
        """
        before = np.cumprod(self.ranks == 0, axis=1, dtype=np.int64).astype(np.bool_)
        first = np.ones((len(self), 1), np.bool_)
        return np.concatenate([first, before[:, :-1]], axis=1) & self.asked()

    def accuracy(self, top: int) -> FloatArray:
        """(K,) how often the right token is among the head's `top` likeliest."""
        right = (self.ranks < top) & self.asked()
        return np.asarray(right.sum(0) / np.maximum(1, self.asked().sum(0)), np.float64)

    def folds(self, count: int = 3) -> IntArray:
        """(N,) fold of each place's text; texts are dealt in turn."""
        _, texts = np.unique(self.texts, return_inverse=True)
        return np.asarray(texts % count, np.int64)

    def of(self, places: BoolArray | IntArray) -> Guesses:
        """Some of the places."""
        return Guesses(self.probabilities[places], self.ranks[places], self.texts[places])


def guesses_in(drafter: Drafter, texts: Iterable[tuple[Sequence[int], Sequence[Any]]]) -> Guesses:
    """What `drafter` guesses after each token of each text but its last.

    texts: tokens, and for each the hidden state that decided it, in the engine's own form. Raises ValueError
    where no text has two tokens.
    """
    parts = [
        _guesses_in_one(drafter, number, tokens, states)
        for number, (tokens, states) in enumerate(texts)
        if len(tokens) > 1
    ]
    if not parts:
        raise ValueError("no text has two tokens")
    return concatenated(parts)


def concatenated(parts: Sequence[Guesses]) -> Guesses:
    """The places of all parts, in order."""
    return Guesses(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.ranks for part in parts]),
        np.concatenate([part.texts for part in parts]),
    )


def ranks_of(guessed: IntArray, right: IntArray) -> IntArray:
    """(N, K) as in `Guesses`. guessed: (N, K, R) tokens; right: (N, K) tokens, ENDED where there is none.

    >>> ranks_of(np.array([[[5, 7], [1, 2]]]), np.array([[7, 3]])).tolist()
    [[1, 2]]
    """
    hits = guessed == right[..., None]
    ranks = np.where(hits.any(-1), hits.argmax(-1), guessed.shape[-1])
    return np.where(right == ENDED, ENDED, ranks)


def _guesses_in_one(drafter: Drafter, number: int, tokens: Sequence[int], states: Sequence[Any]) -> Guesses:
    places = len(tokens) - 1
    contexts = [Context([tokens[place]], states[place]) for place in range(places)]
    proposals = [
        one
        for start in range(0, places, _CONTEXTS)
        for one in drafter.propose(contexts[start : start + _CONTEXTS])
    ]
    guessed = np.stack([one.tokens for one in proposals])
    heads = guessed.shape[1]
    padded = np.concatenate([np.array(tokens, np.int64), np.full(heads, ENDED)])
    right = np.lib.stride_tricks.sliding_window_view(padded, heads)[1 : places + 1]
    probabilities = np.stack([one.probabilities for one in proposals])
    return Guesses(probabilities, ranks_of(guessed, right), np.full(places, number))
