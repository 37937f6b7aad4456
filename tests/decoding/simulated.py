"""Decoding in numbers only: heads with probabilities, a text that agrees with them or not, modelled time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from medusa_decoding.decoding import Outcome, Planner, Proposals, StepCost, Tree
from medusa_decoding.decoding.tree import FloatArray

HEADS, RANKS = 4, 10
CONTEXT = 256
CPU = StepCost((1, 2, 4, 6, 8, 12, 16, 32), {CONTEXT: (5.6, 5.7, 6.4, 7.2, 8.4, 12.0, 16.0, 33.0)}, {1: 0.6})
"""Rows are nearly free up to six."""
DEAR = StepCost((1, 2, 4, 8, 16, 32), {CONTEXT: (66.0, 90.0, 100.0, 104.0, 142.0, 250.0)}, {1: 6.0})
"""A second row costs a third of a step."""


@dataclass
class Simulation:
    """What a planner makes of a text.

    confidence: of the first head's first guess, on average. truth: the share of their probability that the
    heads deserve at a step: 1 is calibrated, 0 useless.
    """

    cost: StepCost
    confidence: float
    truth: Callable[[int], float] = lambda _: 1.0
    seed: int = 0
    spent: float = 0.0
    tokens: int = 0
    rows: list[int] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)

    def run(self, planner: Planner, steps: int) -> Simulation:
        """Decode for so many steps."""
        random = np.random.default_rng(self.seed)
        for step in range(steps):
            chances = guess_probabilities(random, self.confidence)
            asked = planner.drafts(1)
            guesses = proposals(chances) if asked else Proposals.none()
            tree = planner.grow([0], [guesses], [HEADS], [CONTEXT])[0]
            emitted = agreed(tree, chances * self.truth(step), random)
            planner.observe(Outcome(asked, [CONTEXT], [len(tree)], [emitted]))
            self.spent += self.cost.step(len(tree), CONTEXT) + (self.cost.draft(1) if asked else 0.0)
            self.tokens += emitted
            self.rows.append(len(tree))
            self.asked.append(asked)
        return self

    @property
    def speedup(self) -> float:
        """Tokens per millisecond over those of plain decoding."""
        return self.tokens * self.cost.step(1, CONTEXT) / self.spent


def proposals(chances: FloatArray) -> Proposals:
    """Guesses with these probabilities; head h guesses the tokens from 10 h + 1."""
    return Proposals(np.arange(chances.size).reshape(chances.shape) + 1, chances)


def guess_probabilities(random: np.random.Generator, confidence: float) -> FloatArray:
    """(heads, ranks) falling probabilities, sure at one step and unsure at the next."""
    likely = confidence * 0.85 ** np.arange(HEADS)
    first = random.beta(5 * likely, 5 * (1 - likely))
    rest = (1 - first)[:, None] * 0.3 * 0.5 ** np.arange(RANKS - 1)
    return np.concatenate([first[:, None], np.minimum(rest, first[:, None])], axis=1)


def agreed(tree: Tree, chances: FloatArray, random: np.random.Generator) -> int:
    """Tokens emitted when each head's guesses are right with these probabilities: the walk."""
    node, draws = 0, random.random(HEADS)
    for head in range(HEADS):
        rank = int(np.searchsorted(np.cumsum(chances[head]), draws[head], side="right"))
        child = tree.child(node, head * RANKS + rank + 1) if rank < RANKS else None
        if child is None:
            return head + 1
        node = child
    return HEADS + 1
