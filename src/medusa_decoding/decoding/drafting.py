"""The drafting half of a step: whom to ask for guesses, and the tree that each sequence gets."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.masking import permitted_guesses, permitted_tree
from medusa_decoding.decoding.protocols import Context, Drafter, Planner
from medusa_decoding.decoding.sequence import Sequence
from medusa_decoding.decoding.tree import Proposals, Tree


@dataclass(frozen=True)
class Drafts:
    """What was drafted for one step. trees: by the sequence's id. asked: the planner asked the drafter."""

    trees: dict[int, Tree]
    asked: bool


@dataclass(frozen=True)
class Drafting:
    """Drafter, lookup and planner together; see `Decoder`, also for `isolates`."""

    drafter: Drafter
    lookup: Drafter | None
    planner: Planner
    isolates: bool = False

    def draft(self, sequences: Seq[Sequence], depths: Seq[int]) -> Drafts:
        """A tree for each sequence, no deeper than its entry of `depths`.

        The planner decides for those that leave it to it and knows of those without guesses, whose roots
        take rows too; trees of a given size come beside.
        """
        if not sequences:
            return Drafts({}, False)
        limits = [
            0 if sequence.rows == 1 else depth for sequence, depth in zip(sequences, depths, strict=True)
        ]
        planned = [place for place, sequence in enumerate(sequences) if not _is_fixed(sequence)]
        asked = any(limits[place] > 0 for place in planned) and self.planner.drafts(len(planned))
        proposals = self._proposals(sequences, limits, asked)
        for place, sequence in enumerate(sequences):
            if sequence.mask is not None and not proposals[place].is_empty:
                with sequence.faults(self.isolates):
                    proposals[place] = permitted_guesses(proposals[place], sequence.mask, sequence.stop_ids)
        trees = {
            id(sequence): best_first(sequence.tokens[-1], guesses, sequence.rows or 1, depth)
            for sequence, guesses, depth in zip(sequences, proposals, limits, strict=True)
            if _is_fixed(sequence)
        }
        if planned:
            chosen = [(sequences[place], proposals[place], limits[place]) for place in planned]
            trees |= self._planned(chosen)
        for sequence in sequences:
            if sequence.mask is not None and len(trees[id(sequence)]) > 1:
                with sequence.faults(self.isolates):
                    trees[id(sequence)] = permitted_tree(
                        trees[id(sequence)], sequence.mask, sequence.stop_ids
                    )
        return Drafts(trees, asked)

    def _planned(self, chosen: Seq[tuple[Sequence, Proposals, int]]) -> dict[int, Tree]:
        sequences, proposals, limits = zip(*chosen, strict=True)
        roots = [sequence.tokens[-1] for sequence in sequences]
        contexts = [sequence.committed for sequence in sequences]
        trees = self.planner.grow(roots, proposals, limits, contexts)
        return {id(sequence): tree for sequence, tree in zip(sequences, trees, strict=True)}

    def _proposals(self, sequences: Seq[Sequence], limits: Seq[int], asked: bool) -> list[Proposals]:
        """Guesses for each sequence whose tree may have any."""
        found = [Proposals.none()] * len(sequences)
        looking = [place for place, limit in enumerate(limits) if limit > 0]
        heads = [place for place in looking if asked or _is_fixed(sequences[place])]
        lookup = looking if self.lookup is not None else []
        contexts = {place: _context(sequences[place]) for place in (lookup or heads)}
        if heads:
            guesses = self.drafter.propose([contexts[place] for place in heads])
            for place, guess in zip(heads, guesses, strict=True):
                found[place] = guess
        if self.lookup is not None and lookup:
            looked_up = self.lookup.propose([contexts[place] for place in lookup])
            for place, guess in zip(lookup, looked_up, strict=True):
                found[place] = replace(found[place], branches=guess.branches)
        return found


def _is_fixed(sequence: Sequence) -> bool:
    """Whether its tree has a given size, so that the planner has nothing to do with it."""
    return sequence.rows is not None and sequence.rows > 1


def _context(one: Sequence) -> Context:
    return Context([*one.prompt, *one.tokens], one.hidden, one, one.sampling.temperature)
