"""What a forward pass costs by its rows, t(n): of several engines on one chart, and of each by context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from medusa_decoding.plots.picture import Picture, legend_above
from medusa_decoding.plots.results import Given, Kind, Machine, Result
from medusa_decoding.plots.theme import LINES, MARKERS, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Profile(Result):
    """Of `medusa profile --json`. contexts: tokens before the pass → (rows) milliseconds."""

    model: str
    engine: str
    threads: int | None
    rows: list[int]
    contexts: dict[int, list[float]]
    bandwidth_bound_ms: float | None
    machine: Machine

    @model_validator(mode="after")
    def _a_time_for_each_row(self) -> Profile:
        if not self.contexts or any(
            len(times) != len(self.rows) or not times for times in self.contexts.values()
        ):
            raise ValueError("each context needs a time for each number of rows")
        return self

    @property
    def shortest(self) -> int:
        """The shortest context."""
        return min(self.contexts)

    @property
    def times(self) -> list[float]:
        """(rows,) milliseconds at the shortest context."""
        return self.contexts[self.shortest]

    def ratio(self, rows: int) -> float:
        """t(rows) ÷ t(1) at the shortest context; of the next measured number of rows below."""
        place = max(place for place, count in enumerate(self.rows) if count <= rows)
        return self.times[place] / self.times[0]


@dataclass(frozen=True)
class Line:
    """rows: of the passes. times: their milliseconds."""

    label: str
    rows: Sequence[int]
    times: Sequence[float]


def pictures(given: Sequence[Given[Profile]]) -> Iterator[Picture]:
    """All engines on one chart; and each by its contexts, where it has several."""
    if len(given) > 1:
        yield beside(given)
    for one in given:
        yield by_context(one)


def beside(given: Sequence[Given[Profile]]) -> Picture:
    """Several engines: milliseconds, and multiples of one row."""
    # What all have in common stands above, and the legend has room for the rest.
    common = {f"{one.content.model} after {one.content.shortest} tokens" for one in given}
    about = sorted(common) if len(common) == 1 else []
    flattest = min(given, key=lambda one: one.content.ratio(8)).content
    steepest = max(given, key=lambda one: one.content.ratio(8)).content
    caption = (
        "Left: milliseconds of a forward pass that verifies n rows. Right: the same as multiples of the "
        "pass of one row, which is what a tree of n nodes must earn in tokens. The flatter a line begins, "
        f"the larger the trees that pay: eight rows cost {flattest.ratio(8):.1f} times one row on "
        f"{flattest.engine}, {steepest.ratio(8):.1f} times on {steepest.engine}."
    )
    return Picture(
        name="cost-of-verification",
        title="What it costs to verify n rows",
        subtitle="; ".join([*about, *dict.fromkeys(str(one.content.machine) for one in given)]),
        caption=caption,
        height=3.4,
        draw=partial(
            _draw,
            [
                Line(_label(one.content, whole=not about), one.content.rows, one.content.times)
                for one in given
            ],
            None,
        ),
        sources=tuple(one.name for one in given),
    )


def _draw(lines: Sequence[Line], bound: float | None, figure: Figure, theme: Theme) -> None:
    """Milliseconds, and multiples of one row."""
    left, right = figure.subplots(1, 2)
    for place, line in enumerate(lines):
        style = _style(place, theme)
        left.plot(line.rows, line.times, label=line.label, **style)
        right.plot(line.rows, [time / line.times[0] for time in line.times], **style)
    if bound is not None:
        left.axhline(bound, color=theme.muted, ls=":", lw=1.2, label="weights read once")
    left.set(title="milliseconds", xlabel="rows of the pass", ylim=(0, None), xlim=(0, None))
    right.set(title="÷ one row", xlabel="rows of the pass", ylim=(0, None), xlim=(0, None))
    legend_above(figure, 2 if max(len(line.label) for line in lines) > 20 else 4)


def _label(one: Profile, *, whole: bool) -> str:
    return f"{one.model}, {one.engine}, after {one.shortest} tokens" if whole else one.engine


def by_context(given: Given[Profile]) -> Picture:
    """One engine: milliseconds by rows, a line for each context."""
    one = given.content
    longest = max(one.contexts)
    grown = one.contexts[longest][0] / one.times[0]
    contexts = (
        ""
        if longest == one.shortest
        else f" Longer contexts lift the whole line, one row after {longest} tokens takes {grown:.1f} times "
        f"that after {one.shortest}, since keys and values are read as well."
    )
    bound = (
        ""
        if one.bandwidth_bound_ms is None
        else " The dotted line is the time in which this machine's memory delivers the weights once: no pass "
        "can be faster."
    )
    lines = [
        Line(f"after {context} tokens", one.rows, times) for context, times in sorted(one.contexts.items())
    ]
    caption = (
        "Left: milliseconds of a forward pass by the rows that it verifies, after so many tokens. Right: "
        f"the same as multiples of one row. After {one.shortest} tokens, 4 rows cost {one.ratio(4):.2f} "
        f"times one row, 8 rows {one.ratio(8):.2f} times, 16 rows {one.ratio(16):.2f} times: as long as a "
        f"line is flat, guesses are nearly free.{contexts}{bound}"
    )
    return Picture(
        name=f"{given.name}-cost-by-context",
        title=f"What it costs to verify n rows: {one.model}",
        subtitle=f"{one.engine}, {one.threads} threads, {one.machine}",
        caption=caption,
        height=3.4,
        draw=partial(_draw, lines, one.bandwidth_bound_ms),
        sources=(given.name,),
    )


def _style(place: int, theme: Theme) -> dict[str, Any]:
    return {
        "color": theme.colour(place),
        "marker": MARKERS[place % len(MARKERS)],
        "ls": LINES[place % len(LINES)],
        "markersize": 4,
    }


KIND = Kind(
    "cost of passes ('medusa profile --json')",
    frozenset({"rows", "contexts", "draft_milliseconds"}),
    Profile,
    pictures,
)
