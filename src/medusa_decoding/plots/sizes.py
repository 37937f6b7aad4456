"""What more heads, and larger trees, bring and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from medusa_decoding.plots.picture import Picture, legend_above
from medusa_decoding.plots.results import Given, Kind, Machine, Result, drafting
from medusa_decoding.plots.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Side(Result):
    """One way to decode beside plain decoding."""

    acceleration_rate: float
    rows_per_step: float
    speedup: float


class OfHeads(Result):
    """The first `heads` heads, with trees of 16 rows and with the planner's."""

    heads: int
    fixed: Side = Field(alias="16_rows")
    auto: Side


class HeadCounts(Result):
    """Of `benchmarks/number_of_heads.py`."""

    model: str
    engine: str
    suite: str
    prompts: int
    machine: Machine
    heads: list[OfHeads] = Field(min_length=1)


class OfTree(Result):
    """Trees of `rows` rows at each step."""

    rows: int
    side: Side


class TreeSizes(Result):
    """Of `benchmarks/tree_size.py`: trees of a fixed size, and the planner's."""

    model: str
    drafting: str
    engine: str
    suite: str
    prompts: int
    machine: Machine
    trees: list[OfTree] = Field(min_length=1)
    auto: Side


@dataclass(frozen=True)
class Line:
    """One series of both panels: x, and the sides there."""

    label: str
    places: Sequence[float]
    sides: Sequence[Side]


def head_count_pictures(given: Sequence[Given[HeadCounts]]) -> Iterator[Picture]:
    """A picture for each file."""
    for one in given:
        yield of_head_counts(one)


def of_head_counts(given: Given[HeadCounts]) -> Picture:
    """Tokens per step and speedup by the number of heads, with both trees."""
    one = given.content
    counts = [item.heads for item in one.heads]
    best = max(one.heads, key=lambda item: item.auto.speedup)
    most = max(one.heads, key=lambda item: item.auto.acceleration_rate)
    rows = f"{min(item.auto.rows_per_step for item in one.heads):.1f} to "
    rows += f"{max(item.auto.rows_per_step for item in one.heads):.1f}"
    caption = (
        "The first 1, 2, ... of a set of heads. Solid: trees as large as the planner finds worth their "
        f"time, {rows} rows on average; dashed: always 16 rows. A further head pays only where the tokens "
        f"that it adds per step (left; with the planner at most {most.auto.acceleration_rate:.2f}) outweigh "
        f"the time to ask it and to check its guesses (right). Ringed: {_heads(best.heads)}, fastest on this "
        f"machine, {best.auto.speedup:.2f} times plain decoding."
    )
    return Picture(
        name=given.name,
        title=f"What more heads bring: {one.model}",
        subtitle=f"{one.engine}, {one.prompts} prompts of {one.suite}, {one.machine}",
        caption=caption,
        height=3.1,
        draw=partial(
            _draw_heads,
            [
                Line("the planner's trees", counts, [item.auto for item in one.heads]),
                Line("16 rows", counts, [item.fixed for item in one.heads]),
            ],
            (best.heads, best.auto.speedup),
        ),
        sources=(given.name,),
    )


def _heads(count: int) -> str:
    return f"{count} head" if count == 1 else f"{count} heads"


def _draw_heads(lines: Sequence[Line], best: tuple[int, float], figure: Figure, theme: Theme) -> None:
    left, right = _panels(figure, theme)
    _draw_lines(lines, left, right, theme)
    right.plot(*best, **_ring(theme))
    for axes in (left, right):
        axes.set_xlabel("heads")
        axes.set_xticks([int(place) for place in lines[0].places])
    legend_above(figure, 2, left.get_legend_handles_labels()[0])


def tree_size_pictures(given: Sequence[Given[TreeSizes]]) -> Iterator[Picture]:
    """A picture for each file."""
    for one in given:
        yield of_tree_sizes(one)


def of_tree_sizes(given: Given[TreeSizes]) -> Picture:
    """Tokens per step and speedup by the rows of the tree, and where the planner is."""
    one = given.content
    best = max(one.trees, key=lambda tree: tree.side.speedup)
    largest = max(one.trees, key=lambda tree: tree.rows)
    caption = (
        "Trees of n rows at each step, the root included. A larger tree may bring more tokens per step "
        f"(left), but each row costs time (right): the best fixed size here is {best.rows} rows, "
        f"{best.side.speedup:.2f} times plain decoding, {largest.rows} rows bring "
        f"{largest.side.speedup:.2f}. Star: the planner, which chooses the size anew at each step, "
        f"{one.auto.rows_per_step:.1f} rows on average, {one.auto.speedup:.2f} times plain decoding."
    )
    return Picture(
        name=given.name,
        title=f"How large a tree pays: {one.model} with {drafting(one.model, one.drafting)}",
        subtitle=f"{one.engine}, {one.prompts} prompts of {one.suite}, {one.machine}",
        caption=caption,
        height=3.1,
        draw=partial(_draw_sizes, one),
        sources=(given.name,),
    )


def _draw_sizes(one: TreeSizes, figure: Figure, theme: Theme) -> None:
    left, right = _panels(figure, theme)
    line = Line("n rows at each step", [tree.rows for tree in one.trees], [tree.side for tree in one.trees])
    _draw_lines([line], left, right, theme)
    for axes, value in ((left, one.auto.acceleration_rate), (right, one.auto.speedup)):
        axes.axhline(value, color=theme.colour(1), lw=1, ls=":")
        axes.plot(
            one.auto.rows_per_step,
            value,
            marker="*",
            ls="",
            markersize=15,
            color=theme.colour(1),
            markeredgecolor=theme.text,
            label="the planner's choice, on average",
        )
        axes.set_xlabel("rows of the tree")
        axes.set_xlim(0, None)
    legend_above(figure, 2, left.get_legend_handles_labels()[0])


def _panels(figure: Figure, theme: Theme) -> tuple[Axes, Axes]:
    """Tokens per step, and speedup with a line where plain decoding is."""
    left, right = figure.subplots(1, 2)
    left.set_title("tokens per step")
    right.set_title("speed ÷ speed of plain decoding")
    for axes in (left, right):
        axes.axhline(1.0, color=theme.text, lw=1.2)
    return left, right


def _draw_lines(lines: Sequence[Line], left: Axes, right: Axes, theme: Theme) -> None:
    for place, line in enumerate(lines):
        style: dict[str, Any] = {
            "color": theme.colour(place),
            "marker": "os"[place],
            "ls": ("-", "--")[place],
            "label": line.label,
        }
        left.plot(line.places, [side.acceleration_rate for side in line.sides], **style)
        right.plot(line.places, [side.speedup for side in line.sides], **style)


def _ring(theme: Theme) -> dict[str, Any]:
    return {
        "marker": "o",
        "ls": "",
        "markersize": 14,
        "markerfacecolor": "none",
        "markeredgecolor": theme.text,
        "markeredgewidth": 1.5,
        "clip_on": False,
    }


HEADS = Kind(
    "what 1, 2, ... heads bring (benchmarks/number_of_heads.py)",
    frozenset({"heads", "heads_name", "engine"}),
    HeadCounts,
    head_count_pictures,
)
TREES = Kind(
    "what larger trees bring (benchmarks/tree_size.py)",
    frozenset({"trees", "auto", "engine"}),
    TreeSizes,
    tree_size_pictures,
)
