"""How the rows of one step are shared among the prompts that are being read."""

from __future__ import annotations

from collections.abc import Sequence


def shares(wanted: Sequence[int], budget: int) -> list[int]:
    """Rows for each prompt, at most as many as it wants, together at most `budget`.

    Prompts that can be read to their end go first, the shortest before others, but leave a quarter to the
    rest, and the rest has no more than that beside them: the step that brings their first tokens is to be a
    short one, and a long prompt is to go on. Where none can, all get the same, and what does not divide goes
    to the first.

    >>> shares([1500, 20, 40], 128), shares([1500, 70, 200], 64), shares([3, 3, 3], 2)
    ([32, 20, 40], [22, 21, 21], [1, 1, 0])
    """
    whole = _whole(wanted, budget)
    left = [0 if place in whole else rows for place, rows in enumerate(wanted)]
    used = sum(wanted[place] for place in whole)
    rest = _evenly(left, min(budget - used, _kept_for_others(budget)) if whole else budget)
    return [wanted[place] if place in whole else rows for place, rows in enumerate(rest)]


def _whole(wanted: Sequence[int], budget: int) -> set[int]:
    """Places of the prompts that are read to their end."""
    room = budget if sum(wanted) <= budget else budget - _kept_for_others(budget)
    found = set[int]()
    for place in sorted(range(len(wanted)), key=wanted.__getitem__):
        room -= wanted[place]
        if room < 0:
            break
        found.add(place)
    return found if any(wanted[place] for place in found) else set()


def _kept_for_others(budget: int) -> int:
    return max(1, budget // 4)


def _evenly(wanted: Sequence[int], budget: int) -> list[int]:
    """The same for all, and what short ones leave for the others."""
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
