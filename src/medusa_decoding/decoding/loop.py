"""The loop: propose, grow, verify, accept, commit.

Between two steps a sequence's last token, the root, is decided but not yet run through the base model; all
tokens before it are committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace

import numpy as np

from medusa_decoding.decoding.acceptance import Acceptance, ExactAcceptance
from medusa_decoding.decoding.drafting import Drafting, Drafts
from medusa_decoding.decoding.judging import Part, PartJudge, judges
from medusa_decoding.decoding.logprobs import Logprob
from medusa_decoding.decoding.planner import BestFirstPlanner
from medusa_decoding.decoding.prefill import shares
from medusa_decoding.decoding.protocols import (
    Drafter,
    Engine,
    NoDrafter,
    Outcome,
    Planner,
    as_rows,
    concatenate,
)
from medusa_decoding.decoding.sequence import Sequence
from medusa_decoding.decoding.tree import LOOKUP, IntArray, Tree


@dataclass(frozen=True)
class Step:
    """What one step did for one sequence.

    tokens: emitted. sources: of each of them who guessed it: head h, LOOKUP for prompt lookup, 0 for the base
    model itself, which guesses nothing. tree: None for a prefill. rows: that were run. path: the tree's
    accepted nodes, as far as they became text. logprobs: of the tokens, where the sequence wants them.
    """

    sequence: Sequence
    tokens: list[int]
    sources: list[int]
    tree: Tree | None
    seconds: float
    rows: int
    path: list[int]
    logprobs: list[Logprob]

    @property
    def guessed(self) -> int:
        """How many of the tokens were guesses: all but the last, or all where the text ended with one."""
        return sum(source != 0 for source in self.sources)


@dataclass(frozen=True)
class _Outcome:
    """What became of one part. nodes: sources of its tree's nodes. sources: of the emitted tokens. path: the
    rows that are kept.
    """

    part: Part
    tokens: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)


class Decoder:
    """The loop over a list of sequences.

    drafter: asked when the planner says so. lookup: a second one, whose guesses cost nothing to make and
    which is therefore always asked; its branches join the tree. prefill_rows: the most rows of one prompt in
    one forward pass; longer prompts go in pieces. prefill_budget: the most of all prompts together, shared
    among them. isolates: what goes wrong in a sequence's own mask, halt or text ends that sequence, as its
    `error`, and no other; otherwise it is raised.
    """

    def __init__(
        self,
        engine: Engine,
        drafter: Drafter | None = None,
        planner: Planner | None = None,
        acceptance: Acceptance | None = None,
        prefill_rows: int = 512,
        lookup: Drafter | None = None,
        *,
        prefill_budget: int | None = None,
        isolates: bool = False,
    ) -> None:
        self.engine = engine
        self.drafter = drafter or NoDrafter()
        self.planner = planner or BestFirstPlanner()
        self.acceptance = acceptance or ExactAcceptance()
        self.prefill_rows = prefill_rows
        self.lookup = lookup
        self.prefill_budget = prefill_budget
        self.isolates = isolates

    def decode(self, sequences: Seq[Sequence]) -> Iterator[Step]:
        """Write all sequences to their ends, yielding each step of each."""
        while running := [sequence for sequence in sequences if sequence.finish_reason is None]:
            yield from self.step(running)

    def step(self, sequences: Seq[Sequence]) -> list[Step]:
        """One forward pass for unfinished sequences: a tree each, or a piece of the prompt where that is not
        yet committed. Prompts for which the budget leaves no row have no part in it.
        """
        started = time.perf_counter()
        drafts = self._draft([sequence for sequence in sequences if sequence.tokens])
        drafted = time.perf_counter()
        parts = self._parts([one for one in sequences if one.error is None], drafts.trees)
        if not parts:
            return []
        verified = self.engine.forward(concatenate([part.rows for part in parts]))
        judged = judges(parts, verified)
        done = time.perf_counter()
        kept, outcomes = self._accept(judged)
        self.engine.commit(kept)
        self._report([one for one in outcomes if one.part.tree is not None], drafts.asked)
        ended = time.perf_counter()
        return [self._account(one, drafted - started, done - drafted, ended - started) for one in outcomes]

    def _draft(self, sequences: Seq[Sequence]) -> Drafts:
        drafting = Drafting(self.drafter, self.lookup, self.planner, self.isolates)
        # A node deeper than the tokens still wanted could never be used.
        depths = [self._limit(sequence) - len(sequence.tokens) - 1 for sequence in sequences]
        return drafting.draft(sequences, depths)

    def _limit(self, sequence: Sequence) -> int:
        """The most tokens of the text, so that prompt and text fit the context."""
        return min(sequence.max_tokens, self.engine.context_length - len(sequence.prompt))

    def _parts(self, sequences: Seq[Sequence], trees: dict[int, Tree]) -> list[Part]:
        """What of each sequence is run."""
        reading = [one for one in sequences if id(one) not in trees]
        for sequence in reading:
            self._check(sequence)
        pieces = [min(self.prefill_rows, len(one.prompt) - one.committed) for one in reading]
        if self.prefill_budget is not None:
            pieces = shares(pieces, self.prefill_budget)
        sizes = {id(one): size for one, size in zip(reading, pieces, strict=True)}
        return [
            self._part(one, trees.get(id(one)), sizes.get(id(one), 0))
            for one in sequences
            if sizes.get(id(one)) != 0
        ]

    def _part(self, sequence: Sequence, tree: Tree | None, size: int) -> Part:
        """The tree, or the next `size` tokens of the prompt."""
        if sequence.handle is None:
            sequence.handle = self.engine.open()
        if tree is not None:
            wanted = np.ones(len(tree), np.bool_)
            rows = as_rows(
                sequence.handle, tree.tokens, sequence.committed, tree.parents, tree.depths, wanted
            )
            return Part(sequence, rows, tree, True)
        piece = sequence.prompt[sequence.committed : sequence.committed + size]
        depths = np.arange(len(piece))
        last = sequence.committed + len(piece) == len(sequence.prompt)
        wanted = (depths == len(piece) - 1) & last
        rows = as_rows(
            sequence.handle, np.array(piece, np.int64), sequence.committed, depths - 1, depths, wanted
        )
        return Part(sequence, rows, None, last)

    def _check(self, sequence: Sequence) -> None:
        if not sequence.prompt or self._limit(sequence) < 1:
            size, context = len(sequence.prompt), self.engine.context_length
            raise ValueError(
                f"a prompt of {size} tokens and {sequence.max_tokens} more: need at least one of each, "
                f"at most {context} together"
            )
        if not 0 <= sequence.committed < len(sequence.prompt):
            raise ValueError("of a prompt, all but the last token may be committed beforehand")

    def _accept(self, judged: Seq[PartJudge]) -> tuple[IntArray, list[_Outcome]]:
        """(kept,) rows of the pass, and what became of each part whose sequence did not fail."""
        kept: list[int] = []
        outcomes: list[_Outcome] = []
        for judge in judged:
            with judge.part.sequence.faults(self.isolates):
                outcome = self._outcome(judge)
                kept.extend(judge.offset + node for node in outcome.path)
                outcomes.append(outcome)
        return np.array(kept, np.int64), outcomes

    def _outcome(self, judge: PartJudge) -> _Outcome:
        """Let the base model decide on one part."""
        part, sequence = judge.part, judge.part.sequence
        outcome = _Outcome(part, path=list(range(len(part.rows))))
        if part.tree is not None:
            accepted = self.acceptance.accept(part.tree, judge)
            outcome = self._emitted(judge, accepted.tokens, accepted.path, part.tree.sources.tolist())
        elif part.last:
            end = len(part.rows) - 1
            first = self._emitted(judge, [judge.choose(end, [])], [end], [])
            outcome = replace(first, path=outcome.path)
        sequence.committed += len(outcome.path)
        if outcome.tokens:
            sequence.hidden = judge.verified.hidden(judge.offset + outcome.path[-1])
        return outcome

    def _emitted(self, judge: PartJudge, tokens: list[int], path: list[int], nodes: list[int]) -> _Outcome:
        """Make of the chosen tokens text, as far as it goes; each came after one node of the path."""
        sequence = judge.part.sequence
        tokens = sequence.emit(tokens, self._limit(sequence))
        sources = [*(nodes[node] for node in path[1:]), 0][: len(tokens)]
        path = path[: len(tokens)]
        logprobs = judge.logprobs(path, tokens)
        return _Outcome(judge.part, tokens, nodes, sources, path, logprobs)

    def _report(self, grown: Seq[_Outcome], asked: bool) -> None:
        """Tell the planner what became of its trees."""
        grown = [one for one in grown if one.part.sequence.rows in (None, 1)]
        # Texts that must not be guessed take rows beside others; alone they teach nothing.
        if any(one.part.sequence.rows is None for one in grown):
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
        return Step(
            sequence, one.tokens, one.sources, tree, total, len(one.part.rows), one.path, one.logprobs
        )
