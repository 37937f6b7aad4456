"""Speedup by category of prompts: of one way to decode, or of several in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from medusa_decoding.plots.picture import Picture, legend_above
from medusa_decoding.plots.results import Given, Kind, Machine, Result, drafting
from medusa_decoding.plots.theme import MARKERS, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.24
"""Inches of a category."""
WHOLE = "all"
SIDES = {"heads": "heads", "lookup": "prompt lookup", "both": "heads and lookup"}


class Rates(Result):
    """Of one category, or of all. None: there was no step to measure."""

    acceleration_rate: float | None
    speedup: float | None


class Variants(Result):
    """Over the whole suite."""

    medusa: Rates


class BenchSettings(Result):
    """What was asked for."""

    tree: str = "auto"
    temperature: float = 0.0


class Engine(Result):
    """Which engine."""

    name: str


class Bench(Result):
    """Of `medusa bench --json`."""

    model: str
    drafting: str
    engine: Engine
    settings: BenchSettings
    variants: Variants
    categories: dict[str, Rates]
    machine: Machine


class Drafters(Result):
    """Of `benchmarks/drafters.py`: all of `SIDES` by category, "all" among them."""

    model: str
    categories: dict[str, dict[str, Rates | int]] = Field(min_length=1)
    machine: Machine

    def rates(self, category: str, side: str) -> Rates | None:
        """Of one side in one category."""
        found = self.categories[category].get(side)
        return found if isinstance(found, Rates) else None


@dataclass(frozen=True)
class Dots:
    """One series. values: category → number. hollow: no filled markers."""

    label: str
    values: Mapping[str, float]
    hollow: bool = False


def bench_pictures(given: Sequence[Given[Bench]]) -> Iterator[Picture]:
    """Speedup and acceleration rate by category, a picture for each file."""
    for one in given:
        yield of_bench(one)


def of_bench(given: Given[Bench]) -> Picture:
    """Speedup, and the acceleration rate that it would be if guesses cost no time."""
    one = given.content
    # With a single category, the whole suite says the same.
    rates = {**one.categories, **({WHOLE: one.variants.medusa} if len(one.categories) != 1 else {})}
    speedups = {name: rate.speedup for name, rate in rates.items() if rate.speedup is not None}
    tokens = {
        name: rate.acceleration_rate for name, rate in rates.items() if rate.acceleration_rate is not None
    }
    how = "greedy" if one.settings.temperature == 0 else f"temperature {one.settings.temperature:g}"
    caption = (
        "Filled: tokens per second as a multiple of plain decoding, the vertical line. Hollow: tokens per "
        "step. The way from hollow to filled is what the rows of the trees and the guessing "
        f"cost.{_spread(speedups)}"
    )
    return Picture(
        name=f"{given.name}-by-category",
        title=f"Speedup by category: {one.model} with {drafting(one.model, one.drafting)}",
        subtitle=f"{one.engine.name}, {how}, tree {one.settings.tree}, {one.machine}",
        caption=caption,
        height=_height(speedups),
        draw=partial(_draw, [Dots("tokens per step", tokens, True), Dots("speedup", speedups)], list(rates)),
        sources=(given.name,),
    )


def drafter_pictures(given: Sequence[Given[Drafters]]) -> Iterator[Picture]:
    """Heads, prompt lookup and both by category, a picture for each file."""
    for one in given:
        yield of_drafters(one)


def of_drafters(given: Given[Drafters]) -> Picture:
    """Speedup of each side by category."""
    one = given.content
    names = [
        *(name for name in one.categories if name != WHOLE),
        *([WHOLE] if WHOLE in one.categories else []),
    ]
    dots = []
    for side, label in SIDES.items():
        rates = {name: one.rates(name, side) for name in names}
        dots.append(
            Dots(label, {name: r.speedup for name, r in rates.items() if r and r.speedup is not None})
        )
    best = dots[-1].values
    caption = (
        "Tokens per second as a multiple of plain decoding, the vertical line, by who guesses. Lookup lives "
        "on text that repeats, heads guess anywhere; right of both alone, the two help each other."
        + _spread(best, " With both")
    )
    return Picture(
        name=f"{given.name}-by-category",
        title=f"Who guesses best, by category: {one.model}",
        subtitle=str(one.machine),
        caption=caption,
        height=_height(best),
        draw=partial(_draw, dots, names),
        sources=(given.name,),
    )


def _height(values: Mapping[str, float]) -> float:
    return 0.85 + ROW * max(3, len(values))


def _spread(values: Mapping[str, float], begin: str = "") -> str:
    """The best and the worst category in words."""
    some = {name: value for name, value in values.items() if name != WHOLE}
    if len(some) < 2:
        return ""
    low, high = min(some, key=some.__getitem__), max(some, key=some.__getitem__)
    begin = f"{begin} from" if begin else " From"
    return f"{begin} {some[low]:.2f} ({shown(low)}) to {some[high]:.2f} ({shown(high)})."


def shown(category: str) -> str:
    """As a reader has it."""
    return category.replace("_", " ")


def _draw(series: Sequence[Dots], names: Sequence[str], figure: Figure, theme: Theme) -> None:
    """A row for each category, sorted by the last series, the whole below."""
    last = series[-1].values
    order = sorted(names, key=lambda name: (name == WHOLE, -last.get(name, 0.0)))
    axes = figure.subplots()
    axes.axvline(1.0, color=theme.text, lw=1.2)
    for name, place in zip(order, range(len(order)), strict=True):
        found = [dots.values[name] for dots in series if name in dots.values]
        if found:
            axes.hlines(place, min(found), max(found), color=theme.muted, lw=1, zorder=1)
    for number, dots in enumerate(series):
        places = [place for place, name in enumerate(order) if name in dots.values]
        axes.plot(
            [dots.values[order[place]] for place in places],
            places,
            ls="",
            marker=MARKERS[number],
            color=theme.colour(number),
            markerfacecolor=theme.background if dots.hollow else theme.colour(number),
            label=dots.label,
        )
    if WHOLE in order and len(order) > 1:
        axes.axhline(len(order) - 1.5, color=theme.muted, lw=0.8)
    axes.set_yticks(range(len(order)), [shown(name) for name in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("multiple of plain decoding")
    legend_above(figure, len(series))


BENCH = Kind(
    "comparison with plain decoding ('medusa bench --json')",
    frozenset({"variants", "categories", "drafting"}),
    Bench,
    bench_pictures,
)
DRAFTERS = Kind(
    "heads, lookup and both by category (benchmarks/drafters.py)",
    frozenset({"categories", "heads_name", "identical"}),
    Drafters,
    drafter_pictures,
)
