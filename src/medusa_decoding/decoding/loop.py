"""The loop: propose, grow, verify, accept, commit.

Between two steps a sequence's last token, the root, is decided but not yet run through the base model; all
tokens before it are committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np

from medusa_decoding.decoding.acceptance import Acceptance, ExactAcceptance
from medusa_decoding.decoding.planner import BestFirstPlanner
from medusa_decoding.decoding.protocols import (
    Context,
    Drafter,
    Engine,
    NoDrafter,
    Outcome,
    Planner,
    Rows,
    Verified,
    as_rows,
    concatenate,
)
from medusa_decoding.decoding.sampling import Distribution, distribution, uniform
from medusa_decoding.decoding.sequence import Sequence
from medusa_decoding.decoding.tree import LOOKUP, IntArray, Proposals, Tree


@dataclass(frozen=True)
class Step:
    """What one step did for one sequence.

    tokens: emitted. sources: of each of them who guessed it: head h, LOOKUP for prompt lookup, 0 for the base
    model itself, which guesses nothing. tree: None for a prefill.
    """

    sequence: Sequence
    tokens: list[int]
    sources: list[int]
    tree: Tree | None
    seconds: float

    @property
    def guessed(self) -> int:
        """How many of the tokens were guesses: all but the last, or all where the text ended with one."""
        return sum(source != 0 for source in self.sources)


@dataclass(frozen=True)
class _Part:
    """One sequence's share of a forward pass. tree is None for a piece of the prompt;

    Last tells that the prompt ends with it.
    """

    sequence: Sequence
    rows: Rows
    tree: Tree | None
    last: bool


@dataclass(frozen=True)
class _Judge:
    """The base model's opinion on one part;

    `greedy` holds the argmax of its rows where that is all that is needed.
    """

    part: _Part
    verified: Verified
    offset: int
    greedy: IntArray | None

    def distribution(self, node: int, guessed: Seq[int]) -> Distribution:
        sequence = self.part.sequence
        logits = self.verified.logits(self.offset + node)
        return distribution(logits, sequence.sampling, sequence.prompt, [*sequence.tokens, *guessed])

    def choose(self, node: int, guessed: Seq[int]) -> int:
        if self.greedy is not None:
            return int(self.greedy[node])
        sequence = self.part.sequence
        index = len(sequence.tokens) + len(guessed)
        return self.distribution(node, guessed).draw(uniform(sequence.sampling.seed, sequence.choice, index))


@dataclass(frozen=True)
class _Outcome:
    """What became of one part. nodes: sources of its tree's nodes. sources: of the emitted tokens."""

    part: _Part
    tokens: list[int]
    nodes: list[int]
    sources: list[int]


class Decoder:
    """The loop over a list of sequences.

    drafter: asked when the planner says so. lookup: a second one, whose guesses cost nothing to make and
    which is therefore always asked; its branches join the tree. prefill_rows: the most rows of one prompt in
    one forward pass; longer prompts go in pieces.
    """

    def __init__(
        self,
        engine: Engine,
        drafter: Drafter | None = None,
        planner: Planner | None = None,
        acceptance: Acceptance | None = None,
        prefill_rows: int = 512,
        lookup: Drafter | None = None,
    ) -> None:
        self.engine = engine
        self.drafter = drafter or NoDrafter()
        self.planner = planner or BestFirstPlanner()
        self.acceptance = acceptance or ExactAcceptance()
        self.prefill_rows = prefill_rows
        self.lookup = lookup

    def decode(self, sequences: Seq[Sequence]) -> Iterator[Step]:
        """Write all sequences to their ends, yielding each step of each."""
        while running := [sequence for sequence in sequences if sequence.finish_reason is None]:
            yield from self.step(running)

    def step(self, sequences: Seq[Sequence]) -> list[Step]:
        """One forward pass for unfinished sequences: a tree each, or a piece of the prompt where that is not
        yet committed.
        """
        started = time.perf_counter()
        trees, asked = self._draft([sequence for sequence in sequences if sequence.tokens])
        drafted = time.perf_counter()
        parts = [self._part(sequence, trees.get(id(sequence))) for sequence in sequences]
        verified = self.engine.forward(concatenate([part.rows for part in parts]))
        judged = self._judges(parts, verified)
        done = time.perf_counter()
        kept, outcomes = self._accept(judged)
        self.engine.commit(kept)
        self._report([one for one in outcomes if one.part.tree is not None], asked)
        ended = time.perf_counter()
        return [self._account(one, drafted - started, done - drafted, ended - started) for one in outcomes]

    def _draft(self, sequences: Seq[Sequence]) -> tuple[dict[int, Tree], bool]:
        """A tree for each sequence, by its id, and whether the drafter was asked."""
        if not sequences:
            return {}, False
        # A node deeper than the tokens still wanted could never be used.
        depths = [self._limit(sequence) - len(sequence.tokens) - 1 for sequence in sequences]
        asked = max(depths) > 0 and self.planner.drafts(len(sequences))
        proposals = self._proposals(sequences, heads=asked, lookup=max(depths) > 0)
        roots, contexts = zip(*((one.tokens[-1], one.committed) for one in sequences), strict=True)
        trees = self.planner.grow(roots, proposals, depths, contexts)
        return {id(sequence): tree for sequence, tree in zip(sequences, trees, strict=True)}, asked

    def _proposals(self, sequences: Seq[Sequence], *, heads: bool, lookup: bool) -> list[Proposals]:
        if not heads and (self.lookup is None or not lookup):
            return [Proposals.none() for _ in sequences]
        contexts = [
            Context([*one.prompt, *one.tokens], one.hidden, one, one.sampling.temperature)
            for one in sequences
        ]
        found = self.drafter.propose(contexts) if heads else [Proposals.none() for _ in sequences]
        if self.lookup is None or not lookup:
            return found
        both = zip(found, self.lookup.propose(contexts), strict=True)
        return [replace(guesses, branches=looked_up.branches) for guesses, looked_up in both]

    def _limit(self, sequence: Sequence) -> int:
        """The most tokens of the text, so that prompt and text fit the context."""
        return min(sequence.max_tokens, self.engine.context_length - len(sequence.prompt))

    def _part(self, sequence: Sequence, tree: Tree | None) -> _Part:
        if tree is None:
            self._check(sequence)
        if sequence.handle is None:
            sequence.handle = self.engine.open()
        if tree is not None:
            wanted = np.ones(len(tree), np.bool_)
            rows = as_rows(
                sequence.handle, tree.tokens, sequence.committed, tree.parents, tree.depths, wanted
            )
            return _Part(sequence, rows, tree, True)
        piece = sequence.prompt[sequence.committed : sequence.committed + self.prefill_rows]
        depths = np.arange(len(piece))
        last = sequence.committed + len(piece) == len(sequence.prompt)
        wanted = (depths == len(piece) - 1) & last
        rows = as_rows(
            sequence.handle, np.array(piece, np.int64), sequence.committed, depths - 1, depths, wanted
        )
        return _Part(sequence, rows, None, last)

    def _check(self, sequence: Sequence) -> None:
        if not sequence.prompt or self._limit(sequence) < 1:
            size, context = len(sequence.prompt), self.engine.context_length
            raise ValueError(
                f"a prompt of {size} tokens and {sequence.max_tokens} more: need at least one of each, "
                f"at most {context} together"
            )
        if not 0 <= sequence.committed < len(sequence.prompt):
            raise ValueError("of a prompt, all but the last token may be committed beforehand")

    def _judges(self, parts: Seq[_Part], verified: Verified) -> list[tuple[_Part, _Judge]]:
        """A judge per part; the argmax of all rows that greedy sequences may visit is asked for at once."""
        offsets = np.cumsum([0] + [len(part.rows) for part in parts]).tolist()
        asked = [
            np.flatnonzero(part.rows.wanted) + offset
            for part, offset in zip(parts, offsets[:-1], strict=True)
            if part.sequence.sampling.is_argmax
        ]
        best = np.zeros(offsets[-1], np.int64)
        if asked and len(rows := np.concatenate(asked)):
            best[rows] = verified.argmax(rows)
        return [
            (
                part,
                _Judge(part, verified, start, best[start:stop] if part.sequence.sampling.is_argmax else None),
            )
            for part, start, stop in zip(parts, offsets[:-1], offsets[1:], strict=True)
        ]

    def _accept(self, judged: Seq[tuple[_Part, _Judge]]) -> tuple[IntArray, list[_Outcome]]:
        kept: list[int] = []
        outcomes: list[_Outcome] = []
        for part, judge in judged:
            sequence, tokens, nodes, sources = part.sequence, list[int](), list[int](), list[int]()
            path = list(range(len(part.rows)))
            if part.tree is not None:
                accepted = self.acceptance.accept(part.tree, judge)
                tokens = sequence.emit(accepted.tokens, self._limit(sequence))
                nodes = part.tree.sources.tolist()
                sources = [*(nodes[node] for node in accepted.path[1:]), 0][: len(tokens)]
                path = accepted.path[: len(tokens)]
            elif part.last:
                tokens = sequence.emit([judge.choose(path[-1], [])], self._limit(sequence))
                sources = [0]
            kept.extend(judge.offset + node for node in path)
            sequence.committed += len(path)
            if tokens:
                sequence.hidden = judge.verified.hidden(judge.offset + path[-1])
            outcomes.append(_Outcome(part, tokens, nodes, sources))
        return np.array(kept, np.int64), outcomes

    def _report(self, grown: Seq[_Outcome], asked: bool) -> None:
        """Tell the planner what became of its trees."""
        if grown:
            self.planner.observe(
                Outcome(
                    asked,
                    contexts=[int(one.part.rows.positions[0]) for one in grown],
                    rows=[len(one.part.rows) for one in grown],
                    emitted=[len(one.tokens) for one in grown],
                    looked_up_rows=sum(one.nodes.count(LOOKUP) for one in grown),
                    looked_up_tokens=sum(one.sources.count(LOOKUP) for one in grown),
                )
            )

    @staticmethod
    def _account(one: _Outcome, draft: float, verify: float, total: float) -> Step:
        sequence, tree = one.part.sequence, one.part.tree
        statistics = sequence.statistics
        if tree is None:
            statistics.prompt_tokens += len(one.part.rows)
            statistics.prefill_seconds += total
        else:
            statistics.count_step(one.nodes, one.sources)
            statistics.draft_seconds += draft
            statistics.verify_seconds += verify
            statistics.decode_seconds += total
        return Step(sequence, one.tokens, one.sources, tree, total)
