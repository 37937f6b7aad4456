"""One decode as a strip of tokens: a block for each step, a colour and a letter for who guessed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from medusa_decoding.generation.trace import Trace
from medusa_decoding.plots.picture import MARGIN, WIDTH, Picture
from medusa_decoding.plots.results import drafting
from medusa_decoding.plots.theme import Theme
from medusa_decoding.plots.tokens import (
    FONT,
    shown,
    source_fill,
    source_letter,
    source_name,
    sources_in,
    width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOKENS = 90
LINE = 0.42
BOX = 0.22
SIZE = 9.0
PAD = 0.03
GAP = 0.1
"""Inches between two steps; tokens of one step touch."""
LEGEND = 0.35


@dataclass(frozen=True)
class Box:
    """A token where it stands, in inches from the top left. step: its number."""

    text: str
    source: int
    step: int
    left: float
    top: float
    width: float


def strip_picture(name: str, trace: Trace) -> Picture:
    """The beginning of the text, as much as fits on a page."""
    boxes = arrange(trace)
    steps = {box.step for box in boxes}
    whole = sum(len(step.tokens) for step in trace.steps)
    cut = f" Shown are the first {len(boxes)} of {whole} tokens." if len(boxes) < whole else ""
    guessed = sum(box.source != 0 for box in boxes)
    caption = (
        f"Each block of touching tokens is one forward pass of the base model: {len(boxes)} tokens in "
        f"{len(steps)} passes, the prompt's included, {guessed} of them guesses that the base model "
        "accepted. The sign below says who guessed; a block's last token, without a sign, is what the base "
        "model itself puts after them. Plain decoding would have a block for every token; over the whole "
        f"text there were {trace.acceleration_rate:.2f} tokens per step.{cut}"
    )
    return Picture(
        name=f"{name}-tokens",
        title=f"A decode, token by token: {trace.model} with {drafting(trace.model, trace.drafting)}",
        subtitle="",
        caption=caption,
        height=LEGEND + LINE + max(box.top for box in boxes),
        draw=partial(_draw, boxes),
        sources=(name,),
    )


def arrange(trace: Trace) -> list[Box]:
    """Put the tokens one after the other into lines; a step is broken where a line ends."""
    boxes: list[Box] = []
    left, top = 0.0, 0.0
    for number, step in enumerate(trace.steps):
        for text, source in zip(step.texts, step.sources, strict=True):
            if len(boxes) == MOST_TOKENS:
                return boxes
            size = width(len(shown(text)), SIZE) + 2 * PAD
            if left + size > WIDTH - 2 * MARGIN and left:
                left, top = 0.0, top + LINE
            boxes.append(Box(text, source, number, left, top, size))
            left += size
        left += GAP if step.texts and left else 0.0
    return boxes


def _draw(boxes: list[Box], figure: Figure, theme: Theme) -> None:
    engine: Any = figure.get_layout_engine()
    _, below, _, share = engine.get()["rect"]
    # The place is known, and constrained layout has nothing to arrange.
    figure.set_layout_engine("none")
    inner = 1 - 2 * MARGIN / WIDTH
    axes = figure.add_axes((MARGIN / WIDTH, below, inner, share))
    axes.set_axis_off()
    # One unit is one inch, so that what was arranged fits its text.
    axes.set_xlim(0, WIDTH - 2 * MARGIN)
    axes.set_ylim(share * figure.get_figheight(), 0)
    _draw_legend(axes, sources_in(box.source for box in boxes), theme)
    for box in boxes:
        _draw_box(axes, box.text, box.source, box.left, LEGEND + box.top, box.width, theme)


def _draw_legend(axes: Axes, sources: list[int], theme: Theme) -> None:
    left = 0.0
    for source in sources:
        sign = source_letter(source) or "–"
        _draw_box(axes, sign, source, left, 0.0, 0.2, theme, signed=False)
        name = source_name(source)
        axes.text(left + 0.26, BOX / 2, name, size=SIZE, va="center")
        left += 0.5 + 0.075 * len(name)


def _draw_box(
    axes: Axes,
    text: str,
    source: int,
    left: float,
    top: float,
    size: float,
    theme: Theme,
    *,
    signed: bool = True,
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (left, top),
            size,
            BOX,
            facecolor=source_fill(source, theme),
            edgecolor=theme.muted,
            linewidth=0.6,
            clip_on=False,
        )
    )
    axes.text(
        left + size / 2, top + BOX / 2, shown(text), family=FONT, size=SIZE, ha="center", va="center_baseline"
    )
    if signed:
        axes.text(
            left + size / 2,
            top + BOX + 0.08,
            source_letter(source),
            size=6.5,
            color=theme.muted,
            ha="center",
            va="center",
        )
