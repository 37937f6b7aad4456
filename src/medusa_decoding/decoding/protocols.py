"""What the four parts of the loop are to each other: engine, drafter, planner (acceptance has its own file).

A *row* is one token to be run through the base model: (sequence, token, position, parent row). A prompt is a
chain of rows, a draft tree is a tree of rows, and one call may hold rows of many sequences: batching, chunked
prefill and tree verification are one mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medusa_decoding.decoding.tree import BoolArray, FloatArray, IntArray, Proposals, Tree


@dataclass(frozen=True)
class Rows:
    """The rows of one forward pass. Rows of one sequence stand together, parents before children.

    sequences: (rows,) the engine's handle of each row's sequence.
    tokens: (rows,) token ids.
    positions: (rows,) place in the sequence, counted from 0; one more than the parent's.
    parents: (rows,) index of the parent row in this call, or -1 where the parent is the sequence's last
    committed token.
    wanted: (rows,) true where logits or hidden state may be asked for afterwards.
    """

    sequences: IntArray
    tokens: IntArray
    positions: IntArray
    parents: IntArray
    wanted: BoolArray

    def __len__(self) -> int:
        return len(self.tokens)


class Verified(Protocol):
    """What the base model says about the rows of one forward pass.

    Logits stay where the engine made them until asked for.
    """

    def argmax(self, rows: IntArray) -> IntArray:
        """(n,) the likeliest next token after each of the `n` rows asked for; ties go to the lowest id."""
        ...

    def logits(self, row: int) -> FloatArray:
        """(vocabulary,) the logits of one row in float64."""
        ...

    def hidden(self, row: int) -> Any:
        """(hidden size,) the row's hidden state, in the engine's own form: what its heads take."""
        ...


class Engine(Protocol):
    """A base model that verifies rows and keeps the keys and values of those that are committed."""

    @property
    def vocabulary_size(self) -> int:
        """Number of logits of a row."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens a sequence may hold."""
        ...

    def open(self) -> int:
        """Begin a sequence without tokens and return its handle."""
        ...

    def close(self, sequence: int) -> None:
        """End a sequence and free its memory."""
        ...

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` committed tokens of a sequence."""
        ...

    def forward(self, rows: Rows) -> Verified:
        """Run the base model over `rows`.

        Nothing is kept until `commit`; the result is valid until the next `forward`.
        """
        ...

    def commit(self, accepted: IntArray) -> None:
        """Keep the keys and values of these rows of the last `forward`, forget its others.

        Each sequence's rows form a path, in order.
        """
        ...


@dataclass(frozen=True)
class Context:
    """What a drafter may look at: one sequence, its text so far and the base model's hidden state.

    tokens: the prompt and the text; the last one is the root, decided but not yet run through the base model.
    hidden: hidden state of the row before the root, the one that decided it, in the engine's own form.
    owner: the same object at each step of a sequence, whose text only grows, and of no other; a drafter may
    keep by it what it knows of the text. None where there is no such object.
    temperature: at which the base model's tokens are drawn; 0 where it takes the likeliest.
    """

    tokens: Sequence[int]
    hidden: Any
    owner: object = None
    temperature: float = 0.0

    @property
    def root(self) -> int:
        """The one token already decided by the base model."""
        return self.tokens[-1]


class Drafter(Protocol):
    """Guesses the tokens that follow the root."""

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """Guesses for each sequence."""
        ...


class NoDrafter:
    """Proposes nothing: with it the loop is autoregressive decoding."""

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """No guesses for each sequence."""
        return [Proposals.none() for _ in contexts]


@dataclass(frozen=True)
class Outcome:
    """What one step brought the sequences that had a tree in it: what a planner learns from.

    drafted: whether the drafter was asked. contexts: tokens committed before the step. rows: of the tree.
    emitted: tokens that became text, the base model's own included. All but the first: one per sequence.
    looked_up_rows, looked_up_tokens: how many of both, over all sequences, are prompt lookup's.
    """

    drafted: bool
    contexts: Sequence[int]
    rows: Sequence[int]
    emitted: Sequence[int]
    looked_up_rows: int = 0
    looked_up_tokens: int = 0


class Planner(Protocol):
    """Decides which guesses are worth a row of the next forward pass."""

    def drafts(self, count: int) -> bool:
        """Whether the guesses for `count` sequences are worth asking for in the coming step."""
        return True

    def grow(
        self,
        roots: Sequence[int],
        proposals: Sequence[Proposals],
        depths: Sequence[int],
        contexts: Sequence[int],
    ) -> list[Tree]:
        """One tree per sequence, no deeper than its entry of `depths`.

        contexts: how many tokens each sequence has committed.
        """
        ...

    def observe(self, outcome: Outcome) -> None:
        """Be told, after each step with trees, what came of them."""
        return


def as_rows(
    handle: int, tokens: IntArray, start: int, parents: IntArray, depths: IntArray, wanted: BoolArray
) -> Rows:
    """Rows of one sequence whose first row stands at position `start`."""
    return Rows(np.full(len(tokens), handle, np.int64), tokens, start + depths, parents, wanted)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """The rows of several sequences in one call; parents are renumbered."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0] + [len(part) for part in parts[:-1]])
    parents = [
        np.where(part.parents < 0, -1, part.parents + offset)
        for part, offset in zip(parts, offsets, strict=True)
    ]
    return Rows(
        np.concatenate([part.sequences for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate(parents),
        np.concatenate([part.wanted for part in parts]),
    )
