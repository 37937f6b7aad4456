"""Tokens per second beside what people would use instead, with intervals and the weights' quality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from medusa_decoding.plots.picture import Picture
from medusa_decoding.plots.results import Given, Kind, Machine, Result
from medusa_decoding.plots.theme import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.34
SUBJECT = "medusa"


class Estimate(Result):
    """A median over prompts and its 95 % interval."""

    median: float
    low: float
    high: float
    prompts: int


class Side(Result):
    """One way to decode. ratio: medusa's speed over this one's; None for medusa itself."""

    name: str
    peer: str
    weights: str
    perplexity: float | None
    tokens_per_second: Estimate
    ratio: Estimate | None


class Against(Result):
    """Of `medusa bench --against`. own: peers that are this project's engine too."""

    model: str
    threads: int
    drafting: str
    suite: dict[str, Any]
    machine: Machine
    sides: list[Side] = Field(min_length=1)


OWN = frozenset({SUBJECT, "autoregressive", "lookup"})
"""Peers that run on this project's own engine."""


def pictures(given: Sequence[Given[Against]]) -> Iterator[Picture]:
    """A picture for each file."""
    for one in given:
        yield of_against(one)


def of_against(given: Given[Against]) -> Picture:
    """A bar for each side, fastest first."""
    one = given.content
    sides = sorted(one.sides, key=lambda side: -side.tokens_per_second.median)
    caption = (
        "Tokens per second of decoding, median over prompts; whiskers are 95 % bootstrap intervals. Striped: "
        "this project's engine. In brackets medusa's speed divided by this one's, prompt by prompt; then how "
        f"the weights are held and their perplexity on the same text, lower is better.{_others(sides)}"
    )
    return Picture(
        name=f"{given.name}-speed",
        title=f"Tokens per second: {one.model}",
        subtitle=f"{one.suite.get('file', '')}, {one.threads} threads, {one.machine}",
        caption=caption,
        height=0.45 + ROW * len(sides),
        draw=partial(_draw, sides),
        sources=(given.name,),
    )


def _others(sides: Sequence[Side]) -> str:
    """The nearest rival in words."""
    rivals = [side for side in sides if side.peer not in OWN and side.ratio is not None]
    if not rivals:
        return ""
    nearest = min(rivals, key=lambda side: side.ratio.median if side.ratio else 0.0)
    assert nearest.ratio is not None
    ratio = nearest.ratio
    return (
        f" Of other programs, {nearest.name} comes nearest: medusa is {ratio.median:.2f} times as fast "
        f"({ratio.low:.2f} to {ratio.high:.2f})."
    )


def label(side: Side) -> str:
    """What stands beside a bar."""
    ratio = "" if side.ratio is None else f" (×{side.ratio.median:.2f})"
    quality = "" if side.perplexity is None else f", perplexity {side.perplexity:.2f}"
    return f"{side.tokens_per_second.median:.1f}{ratio}   {side.weights}{quality}"


def _draw(sides: Sequence[Side], figure: Figure, theme: Theme) -> None:
    axes = figure.subplots()
    speeds = [side.tokens_per_second for side in sides]
    places = range(len(sides))
    bars = axes.barh(places, [speed.median for speed in speeds], height=0.66)
    for bar, side in zip(bars, sides, strict=True):
        own = side.peer in OWN
        bar.set_facecolor(theme.colour(0) if side.peer == SUBJECT else theme.colour(5 if own else 6))
        bar.set_hatch("///" if own else "")
        bar.set_edgecolor(theme.background)
    below = [max(0.0, speed.median - speed.low) for speed in speeds]
    above = [max(0.0, speed.high - speed.median) for speed in speeds]
    axes.errorbar(
        [speed.median for speed in speeds],
        places,
        xerr=[below, above],
        fmt="none",
        ecolor=theme.text,
        capsize=3,
    )
    most = max(speed.high for speed in speeds)
    for place, side, speed in zip(places, sides, speeds, strict=True):
        axes.text(max(speed.high, speed.median) + 0.015 * most, place, label(side), va="center", size=8.5)
    axes.set_yticks(places, [side.name for side in sides])
    axes.set_ylim(len(sides) - 0.4, -0.6)
    # Room for the longest bar's words.
    axes.set_xlim(0, most * 1.7)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= most])
    axes.set_xlabel("tokens per second")
    axes.grid(visible=False, axis="y")


KIND = Kind(
    "comparison with other programs ('medusa bench --against')",
    frozenset({"sides", "drafting", "prompts", "skipped_prompts"}),
    Against,
    pictures,
)
