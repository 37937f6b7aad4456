"""How the rows of one step are shared among the prompts that are being read."""

from __future__ import annotations

from collections.abc import Sequence


def shares(wanted: Sequence[int], budget: int) -> list[int]:
    """Rows for each prompt, at most as many as it wants, together at most `budget`.

    All get the same; what short prompts leave goes to the others, and what does not divide to the first. So a
    long prompt does not hold up a short one.

    >>> shares([1500, 20, 100], 128), shares([3, 3, 3], 2)
    ([54, 20, 54], [1, 1, 0])
    """
    given = [0] * len(wanted)
    hungry = [place for place, rows in enumerate(wanted) if rows > 0]
    while budget and hungry:
        each = max(1, budget // len(hungry))
        for place in hungry:
            more = min(each, wanted[place] - given[place], budget)
            given[place] += more
            budget -= more
        hungry = [place for place in hungry if given[place] < wanted[place]]
    return given
