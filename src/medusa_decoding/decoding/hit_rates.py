"""How often looking a token up finds the right one: measured beforehand, and in the run itself."""

from __future__ import annotations

from bisect import bisect_left

from medusa_decoding.decoding.suffix_index import LONGEST, Match

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""The longest match of each class of lengths but the last."""
STREAKS = 4
"""Streaks as long as this or longer are one class."""

# Rows: classes of lengths. Columns: streaks of 1, 2, 3, 4 and more where no other token ever followed, then
# the same where one did.
FIRST = (
    (0.35, 0.58, 0.69, 0.78, 0.16, 0.40, 0.51, 0.68),
    (0.58, 0.75, 0.83, 0.90, 0.28, 0.54, 0.74, 0.76),
    (0.67, 0.77, 0.87, 0.95, 0.27, 0.59, 0.76, 0.86),
    (0.70, 0.81, 0.90, 0.96, 0.30, 0.63, 0.73, 0.83),
    (0.75, 0.85, 0.94, 0.97, 0.28, 0.67, 0.81, 0.94),
    (0.79, 0.91, 0.97, 0.99, 0.29, 0.69, 0.86, 0.94),
    (0.85, 0.94, 0.98, 0.99, 0.33, 0.75, 0.70, 0.94),
    (0.88, 0.97, 0.99, 0.99, 0.47, 0.85, 0.93, 0.96),
    (0.92, 0.98, 0.99, 0.99, 0.53, 0.89, 0.97, 0.97),
    (0.96, 0.99, 0.99, 0.99, 0.61, 0.91, 0.98, 0.99),
)
"""The share of right tokens among those that followed the latest time: 2,000 greedy answers of SmolLM2-135M
(`benchmarks/lookup_hit_rates.py`), at most 0.99.
"""
SECOND = (0.185, 0.133, 0.089, 0.042)
"""The same for the token that followed before the streak; columns: streaks of 1, 2, 3, 4 and more."""
CLASS_WEIGHT = 30.0
CLASS_MEMORY = 0.995
"""How many tokens of the run weigh as much as what was measured beforehand, for one class of matches, and by
which factor the class forgets with each further one.
"""
MOMENT_WEIGHT = 10.0
MOMENT_MEMORY = 0.98
"""How many hits, or misses, of the recent past weigh as much, for all classes together, and how it fades."""

_CLASS = tuple(bisect_left(LENGTHS, length) for length in range(LONGEST + 1))


class HitRates:
    """Probabilities of tokens that were looked up, given the match that they follow.

    What was measured beforehand is raised or lowered, for all matches together, by how the last fifty tokens
    or so compare with it, since one text repeats itself and the next does not. Each class of matches starts
    from there and counts what the run brings.
    """

    def __init__(self) -> None:
        self._moment = _Moment()
        self._first = [[_Rate() for _ in row] for row in FIRST]
        self._second = [_Rate() for _ in SECOND]

    def first(self, match: Match) -> float:
        """The probability of the token that followed the latest time."""
        row, column = class_of(match)
        return self._first[row][column].value(self._moment.raised(FIRST[row][column]))

    def second(self, match: Match) -> float:
        """The probability of the token that followed before the streak; 0 where there is none."""
        if match.other < 0:
            return 0.0
        column = min(match.streak, STREAKS) - 1
        return min(self._second[column].value(SECOND[column]), 1 - self.first(match))

    def observe(self, match: Match, first: bool, second: bool) -> None:
        """Be told which of a match's two tokens, if either, was right."""
        row, column = class_of(match)
        self._first[row][column].count(first)
        self._moment.count(first, FIRST[row][column])
        if match.other >= 0:
            self._second[min(match.streak, STREAKS) - 1].count(second)


def class_of(match: Match) -> tuple[int, int]:
    """The row and the column of FIRST that a match belongs to."""
    column = min(match.streak, STREAKS) - 1 + (STREAKS if match.other >= 0 else 0)
    return _CLASS[match.length], column


class _Rate:
    """The share of hits in one class of matches."""

    def __init__(self) -> None:
        self._hits = self._trials = 0.0

    def value(self, prior: float) -> float:
        return (CLASS_WEIGHT * prior + self._hits) / (CLASS_WEIGHT + self._trials)

    def count(self, hit: bool) -> None:
        self._hits = CLASS_MEMORY * self._hits + hit
        self._trials = CLASS_MEMORY * self._trials + 1


class _Moment:
    """Hits and misses of the recent past, whatever their class, against how many were expected."""

    def __init__(self) -> None:
        self._hits = self._expected_hits = self._misses = self._expected_misses = MOMENT_WEIGHT
        self._odds = 1.0

    def raised(self, chance: float) -> float:
        """A probability whose odds are better than those of `chance` by as much as the past was."""
        return chance * self._odds / (1 - chance + chance * self._odds)

    def count(self, hit: bool, expected: float) -> None:
        forgotten = (1 - MOMENT_MEMORY) * MOMENT_WEIGHT
        self._hits = MOMENT_MEMORY * self._hits + forgotten + hit
        self._expected_hits = MOMENT_MEMORY * self._expected_hits + forgotten + expected
        self._misses = MOMENT_MEMORY * self._misses + forgotten + (not hit)
        self._expected_misses = MOMENT_MEMORY * self._expected_misses + forgotten + 1 - expected
        self._odds = self._hits / self._expected_hits * self._expected_misses / self._misses
