"""Prompt lookup: guesses that continue the longest match of a text's end in the text itself.

It needs no heads and no training, and takes no time to speak of. Answers that quote their prompt (summaries,
edits of code) and texts that repeat themselves gain by it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from medusa_decoding.decoding.hit_rates import HitRates
from medusa_decoding.decoding.protocols import Context
from medusa_decoding.decoding.suffix_index import LONGEST, SuffixIndex
from medusa_decoding.decoding.tree import Proposals, Tree


class LookupDrafter:
    """Proposes a tree of tokens that followed the same words before, valued by how often that was right.

    nodes: the most guesses for one sequence. least: path probability below which a guess is left out. What
    was learnt of hit rates is kept over texts, so one drafter serves one engine; what a text holds is kept
    as long as the text's `Context.owner`.
    """

    def __init__(self, nodes: int = 24, least: float = 0.05) -> None:
        assert nodes >= 1 and least > 0
        self.nodes = nodes
        self.least = least
        self.rates = HitRates()
        self._indices: WeakKeyDictionary[object, SuffixIndex] = WeakKeyDictionary()

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """One tree of guesses for each sequence, below its root."""
        # All texts teach before any is guessed on, so that their order does not matter.
        indices = [self._followed(context) for context in contexts]
        return [Proposals.of(self._grow(index)) for index in indices]

    def _followed(self, context: Context) -> SuffixIndex:
        """The index of a text, brought up to its last token.

        Every token that has come since the last time shows what looking it up would have found.
        """
        owner, tokens = context.owner, context.tokens
        index = None if owner is None else self._indices.get(owner)
        if index is None:
            index = SuffixIndex(tokens)
            if owner is not None:
                self._indices[owner] = index
        for token in tokens[len(index) :]:
            self._learn(index, token)
            index.append(token)
        return index

    def _learn(self, index: SuffixIndex, token: int) -> None:
        match = index.find(index.end)
        if match is not None:
            second = match.other >= 0 and index.tokens[match.other] == token
            self.rates.observe(match, index.tokens[match.place] == token, second)

    def _grow(self, index: SuffixIndex) -> Tree:
        """The likeliest continuations, likeliest first."""
        tokens, parents, chances = [index.tokens[-1]], [-1], [1.0]
        # An entry is (-path probability, order of opening, parent node, end of the text with the guess).
        frontier: list[tuple[float, int, int, list[int]]] = []
        opened, end = 0, index.end
        while True:
            for token, chance in self._next(index, end):
                if chances[-1] * chance >= self.least:
                    opened += 1
                    entry = (-chances[-1] * chance, opened, len(tokens) - 1, [*end[1 - LONGEST :], token])
                    heapq.heappush(frontier, entry)
            if not frontier or len(tokens) > self.nodes:
                break
            negative, _, parent, end = heapq.heappop(frontier)
            tokens.append(end[-1])
            parents.append(parent)
            chances.append(-negative)
        return Tree(np.array(tokens, np.int64), np.array(parents, np.int64), np.array(chances, np.float64))

    def _next(self, index: SuffixIndex, end: Sequence[int]) -> list[tuple[int, float]]:
        """What may follow `end`, with probabilities."""
        match = index.find(end)
        if match is None:
            return []
        first = (index.tokens[match.place], self.rates.first(match))
        if match.other < 0:
            return [first]
        return [first, (index.tokens[match.other], self.rates.second(match))]
