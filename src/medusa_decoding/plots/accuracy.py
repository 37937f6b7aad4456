"""How often each head is right: its first choice, or one of its k likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from medusa_decoding.plots.picture import Picture, legend_above
from medusa_decoding.plots.results import Given, Kind, Machine, Result
from medusa_decoding.plots.theme import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Accuracy = Mapping[int, Sequence[float]]
"""k → (heads,) share of places where the right token is among the head's k likeliest."""


class Measured(Result):
    """Heads on texts drawn at one temperature."""

    temperature: float
    texts: int
    top: dict[int, list[float]] = Field(min_length=1)


class Tuning(Result):
    """Of `tuning.json`, which `medusa tune` writes."""

    model: str
    heads: str
    measured: list[Measured] = Field(min_length=1)


class Base(Result):
    """The base model."""

    model: str


class Training(Result):
    """Of `training.json`, which `medusa train` writes. history: figures of each epoch's evaluation."""

    base: Base
    machine: Machine
    history: list[dict[str, Any]] = Field(min_length=1)
    kept_epoch: int | None = None

    @model_validator(mode="after")
    def _accuracy_was_measured(self) -> Training:
        if not self.accuracy:
            raise ValueError("no epoch has accuracies")
        return self

    @property
    def epoch(self) -> dict[str, Any]:
        """The epoch whose weights were kept: the last one, if no other is named."""
        kept = [one for one in self.history if one.get("epoch") == self.kept_epoch]
        return kept[0] if kept else self.history[-1]

    @property
    def accuracy(self) -> Accuracy:
        """Of that epoch."""
        return {
            int(name[3:]): found
            for name, found in self.epoch.items()
            if name[:3] == "top" and name[3:].isdigit()
        }


def tuning_pictures(given: Sequence[Given[Tuning]]) -> Iterator[Picture]:
    """A picture for each file, with a panel for each temperature."""
    for one in given:
        panels = {_how(measured): measured.top for measured in one.content.measured}
        yield _picture(one.name, one.content.model, f"texts that {one.content.model} wrote", panels)


def training_pictures(given: Sequence[Given[Training]]) -> Iterator[Picture]:
    """A picture for each file."""
    for one in given:
        epoch = one.content.epoch.get("epoch", len(one.content.history))
        panels = {f"texts held out in training, after epoch {epoch}": one.content.accuracy}
        yield _picture(one.name, one.content.base.model, str(one.content.machine), panels)


def _how(measured: Measured) -> str:
    how = "greedy" if measured.temperature == 0 else f"temperature {measured.temperature:g}"
    return f"{how}, {measured.texts} texts"


def _picture(name: str, model: str, subtitle: str, panels: Mapping[str, Accuracy]) -> Picture:
    first = next(iter(panels.values()))
    few, many = min(first), max(first)
    counted = (
        f"Head 1's first guess is right in {first[few][0]:.0%} of places, one of its {many} likeliest in "
        f"{first[many][0]:.0%}"
        if few == 1
        else f"One of head 1's {many} likeliest guesses is right in {first[many][0]:.0%} of places"
    )
    last = len(first[few])
    further = (
        f"; of head {last}'s {first[few][-1]:.0%} and {first[many][-1]:.0%}" if last > 1 and few == 1 else ""
    )
    caption = (
        "How often the right token is a head's likeliest guess (top-1) or among its k likeliest (top-k). "
        "Head h guesses the token h places after the one that the base model has just decided. "
        f"{counted}{further}. What lies between top-1 and top-k is what a tree can gain over a chain."
    )
    return Picture(
        name=f"{name}-head-accuracy",
        title=f"Accuracy by head and top-k: heads of {model}",
        subtitle=subtitle,
        caption=caption,
        height=0.4 + 1.75 * len(panels),
        draw=partial(_draw, panels),
        sources=(name,),
    )


def _draw(panels: Mapping[str, Accuracy], figure: Figure, theme: Theme) -> None:
    rows = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    first = next(iter(panels.values()))
    for axes, (title, accuracy) in zip(rows, panels.items(), strict=True):
        width = 0.8 / len(accuracy)
        for place, (k, shares) in enumerate(sorted(accuracy.items())):
            left = [head - 0.4 + place * width for head in range(1, len(shares) + 1)]
            bars = axes.bar(
                left,
                shares,
                width * 0.92,
                align="edge",
                color=theme.shade(0, place, len(accuracy)),
                label=f"top-{k}" if axes is rows[0] else None,
            )
            axes.bar_label(
                bars, [f"{share:.2f}"[1:] if share < 1 else "1" for share in shares], size=8, padding=1
            )
        axes.set(
            title=title, ylim=(0, 1), yticks=[0, 0.25, 0.5, 0.75, 1], yticklabels=["0", "", ".5", "", "1"]
        )
        axes.grid(visible=False, axis="x")
        heads = len(next(iter(accuracy.values())))
        axes.set_xticks(range(1, heads + 1), [f"head {head}" for head in range(1, heads + 1)])
        axes.tick_params(axis="x", length=0, labelbottom=True)
    legend_above(figure, len(first))


TUNING = Kind(
    "accuracy of heads (tuning.json, from 'medusa tune')",
    frozenset({"medusa_choices", "measured"}),
    Tuning,
    tuning_pictures,
)
TRAINING = Kind(
    "a training (training.json, from 'medusa train')",
    frozenset({"recipe", "history"}),
    Training,
    training_pictures,
)
