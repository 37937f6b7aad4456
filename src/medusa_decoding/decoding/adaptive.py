"""The planner that knows what rows cost on this machine (docs/planner.md).

Throughput over a whole run is to be best, tokens per millisecond. A step of n rows takes t(n) and brings, by
the heads' own probabilities, E(n) tokens: one, and for each guess the probability that its path is right. If
the run makes lambda tokens per millisecond, t(n) milliseconds are worth lambda * t(n) tokens elsewhere, so
the best step is the one with the largest E(n) - lambda * t(n).

Nothing here reads a clock: the same texts get the same trees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.cost import StepCost
from medusa_decoding.decoding.protocols import Outcome, Planner
from medusa_decoding.decoding.tree import FloatArray, IntArray, Proposals, Tree

MEMORY = 0.98
"""The weight of the past in the running rate: it looks back over some fifty steps."""
ALLOWANCE = 0.01
"""The share of the time that trying guesses again may cost where they never pay."""
EAGERNESS = 0.1
"""The same share right after the first loss."""
LONGEST_PAUSE = 64
LEAST = 0.01
"""Nowhere is a row so cheap that a guess pays which comes true less often."""
TOGETHER = 8
"""Rows of which the mean price is that of one."""
STRETCH = 32
"""Tokens of context within which a step is taken to cost the same."""
FIRST_CREDIT = 0.4
MOST_CREDIT = 8.0
"""What guesses may lose at first, and have earned at most and lose again, in plain steps, before they are
paused: single steps bring far more or less than the mean.
"""


class AdaptivePlanner(Planner):
    """Best-first trees as large as pays on this machine at this moment; no guesses for a while where they do
    not. Guesses of prompt lookup cost nothing to make and are never paused.

    cost: of this engine and drafter. limit: the most rows of one step, over all its sequences; each sequence
    has its root in any case. least: guesses whose path is right less often are not looked at, nor those that
    are far from paying for a row; 0 looks at all. The running rate and the pauses are kept over texts, so one
    planner serves one engine, in any number of decodes one after the other.
    """

    def __init__(self, cost: StepCost, limit: int = 32, least: float = LEAST) -> None:
        assert limit >= 1
        self.cost = cost
        self.limit = limit
        self.least = least
        # Both in plain steps, those of one row per sequence: what the steps brought, what they took.
        self._brought = self._took = 1.0
        self._credit = FIRST_CREDIT
        self._pause = self._last_pause = 0
        self._known: dict[int, FloatArray] = {}

    @property
    def speedup(self) -> float:
        """The running rate, as a multiple of the rate of plain decoding; never below it, since plain decoding
        is always open.
        """
        return max(1.0, self._brought / self._took)

    def drafts(self, count: int) -> bool:
        """False during a pause, and where the roots alone fill a step."""
        return self._pause == 0 and count < self.limit

    def grow(
        self,
        roots: Sequence[int],
        proposals: Sequence[Proposals],
        depths: Sequence[int],
        contexts: Sequence[int],
    ) -> list[Tree]:
        """The likeliest guesses of all sequences together, as many as pay."""
        if all(guesses.is_empty for guesses in proposals):
            # As at each step of a pause, which should cost nothing.
            return [Tree.of_root(root) for root in roots]
        count = len(roots)
        most = max(0, self.limit - count)
        known = self._times(sum(contexts) / count, count)
        rate = self.speedup * count / float(known[count])
        trees = [
            best_first(root, guesses, most + 1, depth, self._least(known, rate))
            for root, guesses, depth in zip(roots, proposals, depths, strict=True)
        ]
        if count == 1:
            [tree] = trees
            chances = tree.probabilities[1:]
            return [tree.prefix(1 + best_size(1, chances, known[1 : len(tree) + 1], rate))]
        owners, chances = merged(trees)
        owners, chances = owners[:most], chances[:most]
        if not len(chances):
            return [tree.prefix(1) for tree in trees]
        guesses = best_size(count, chances, known[count : count + len(chances) + 1], rate)
        taken = np.bincount(owners[:guesses], minlength=count).tolist()
        return [tree.prefix(1 + size) for tree, size in zip(trees, taken, strict=True)]

    def observe(self, outcome: Outcome) -> None:
        """Keep the running rate, and pause the heads where they cost more than they bring."""
        brought = sum(outcome.emitted)
        self._brought = MEMORY * self._brought + (1 - MEMORY) * brought / len(outcome.rows)
        self._took = MEMORY * self._took + (1 - MEMORY) * self._plain_steps(outcome, sum(outcome.rows))
        if not outcome.drafted:
            self._pause = max(0, self._pause - 1)
            return
        # Prompt lookup's luck says nothing about the heads: the step as it would have been without it.
        by_heads = (brought - outcome.looked_up_tokens) / len(outcome.rows)
        self._judge(by_heads - self._plain_steps(outcome, sum(outcome.rows) - outcome.looked_up_rows))

    def _plain_steps(self, outcome: Outcome, rows: int) -> float:
        """What a step of `rows` rows took by the cost model, in plain steps of its sequences."""
        count = len(outcome.rows)
        if rows == count and not outcome.drafted:
            return 1.0
        times = self._times(sum(outcome.contexts) / count, rows)
        plain, actual = times[count], times[rows]
        return float((actual + (self.cost.draft(count) if outcome.drafted else 0.0)) / plain)

    def _times(self, context: float, rows: int = 0) -> FloatArray:
        """(sizes,) milliseconds of a step of 0, 1, ... rows, `limit` and `rows` among them, at the beginning
        of the stretch that the context lies in.
        """
        stretch = int(context) // STRETCH
        times = self._known.get(stretch)
        if times is None or len(times) <= rows:
            sizes = np.arange(max(self.limit, rows) + 1)
            times = self._known[stretch] = self.cost.steps(sizes, stretch * STRETCH)
        return times

    def _least(self, times: FloatArray, rate: float) -> float:
        """The probability below which no guess is looked at: half of what the cheapest row costs, in tokens.

        Rows are not equally dear, so the cheapest is taken of a few together.
        """
        if self.least == 0.0 or len(times) <= 2 * TOGETHER:
            return self.least
        cheapest = float((times[1 + TOGETHER :] - times[1:-TOGETHER]).min()) / TOGETHER
        return max(self.least, 0.5 * rate * cheapest)

    def _judge(self, gain: float) -> None:
        """After a step with guesses of heads: `gain` is what they brought beyond what they took.

        Losses are borne while earlier gains cover them. Then each loss brings a pause twice as long as the
        one before, until trying again costs no more than the allowance; a gain ends that.
        """
        self._credit = min(MOST_CREDIT, self._credit + gain)
        if gain > 0:
            self._last_pause = 0
        if self._credit < 0:
            self._credit = 0.0
            shortest, longest = (math.ceil(-gain / share) for share in (EAGERNESS, ALLOWANCE))
            self._pause = min(LONGEST_PAUSE, longest, max(shortest, 2 * self._last_pause))
            self._last_pause = self._pause


def merged(trees: Sequence[Tree]) -> tuple[IntArray, FloatArray]:
    """The guesses of several best-first trees in one order, likeliest first: (guesses,) index of the tree and
    (guesses,) path probability.

    Guesses of one tree keep their order, so any first part of it is a first part of each tree. Ties go to
    the first tree.
    """
    sizes = [len(tree) - 1 for tree in trees]
    chances = np.concatenate([tree.probabilities[1:] for tree in trees])
    owners = np.repeat(np.arange(len(trees)), sizes)
    if len(trees) == 1:
        return owners, chances
    order = np.argsort(-chances, kind="stable")
    return owners[order], chances[order]


def best_size(count: int, chances: FloatArray, times: FloatArray, rate: float) -> int:
    """How many guesses to take, from the first. rate: tokens that a millisecond brings elsewhere.

    chances: (guesses,) path probabilities. times: (guesses + 1,) milliseconds of a step of `count` roots and
    0, 1, ... guesses. All sizes are compared, since a step in `times` may hide a larger tree that pays again;
    ties go to the smallest. What drafting took is spent by now, whatever the size.

    >>> chances = np.array([0.6, 0.3, 0.3, 0.24])
    >>> times = np.array([5.0, 5.2, 5.4, 5.6, 6.6])
    >>> best_size(1, chances, times, 0.2), best_size(1, chances, times, 0.355)
    (4, 3)
    """
    expected = count + np.concatenate([[0.0], np.cumsum(chances)])
    return int(np.argmax(expected - rate * times))
