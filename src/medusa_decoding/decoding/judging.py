"""One pass's parts, one per sequence, and what the base model says about each."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from medusa_decoding.decoding.logprobs import Logprob, logprob
from medusa_decoding.decoding.protocols import Rows, Verified
from medusa_decoding.decoding.sampling import Distribution, distribution, uniform
from medusa_decoding.decoding.sequence import Sequence
from medusa_decoding.decoding.tree import IntArray, Tree


@dataclass(frozen=True)
class Part:
    """One sequence's share of a forward pass. tree: None for a piece of a prompt. last: it ends with it."""

    sequence: Sequence
    rows: Rows
    tree: Tree | None
    last: bool


@dataclass(frozen=True)
class PartJudge:
    """The base model's opinion on one part (`acceptance.Judge`), whose rows begin at `offset`.

    greedy: the argmax of its rows where that is all that is needed.
    """

    part: Part
    verified: Verified
    offset: int
    greedy: IntArray | None

    def distribution(self, node: int, guessed: Seq[int]) -> Distribution:
        """The processed distribution after `node`."""
        sequence = self.part.sequence
        logits = self.verified.logits(self.offset + node)
        allowed = None if sequence.mask is None else sequence.mask.allowed(guessed)
        return distribution(logits, sequence.sampling, sequence.prompt, [*sequence.tokens, *guessed], allowed)

    def choose(self, node: int, guessed: Seq[int]) -> int:
        """The token that the base model emits after `node`."""
        if self.greedy is not None:
            return int(self.greedy[node])
        sequence = self.part.sequence
        if sequence.mask is not None and guessed and guessed[-1] in sequence.stop_ids:
            # The text ends there, and a mask has nothing to say about what is cut off.
            return guessed[-1]
        index = len(sequence.tokens) + len(guessed)
        return self.distribution(node, guessed).draw(uniform(sequence.sampling.seed, sequence.choice, index))

    def logprobs(self, path: Seq[int], tokens: Seq[int]) -> list[Logprob]:
        """Those of the tokens after the path's nodes, one after the other, if the sequence wants them."""
        top = self.part.sequence.logprobs
        if top is None:
            return []
        return [
            logprob(self.verified.logits(self.offset + node), token, top)
            for node, token in zip(path, tokens, strict=True)
        ]


def judges(parts: Seq[Part], verified: Verified) -> list[PartJudge]:
    """A judge per part; the argmax of all rows that greedy sequences may visit is asked for at once."""
    offsets = np.cumsum([0] + [len(part.rows) for part in parts]).tolist()
    asked = [
        np.flatnonzero(part.rows.wanted) + offset
        for part, offset in zip(parts, offsets[:-1], strict=True)
        if part.sequence.is_argmax
    ]
    best = np.zeros(offsets[-1], np.int64)
    if asked and len(rows := np.concatenate(asked)):
        best[rows] = verified.argmax(rows)
    return [
        PartJudge(part, verified, start, best[start:stop] if part.sequence.is_argmax else None)
        for part, start, stop in zip(parts, offsets[:-1], offsets[1:], strict=True)
    ]
