"""One draft tree: its guesses, how likely their paths were, and which the base model accepted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from medusa_decoding.generation.trace import Trace, TracedStep, TracedTree
from medusa_decoding.plots.picture import MARGIN, WIDTH, Picture, legend_above
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
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NODES = 20
MOST_DEPTH = 5
"""Of a tree that can be read on a page, where the decode has one."""
ROW = 0.36
SIZE = 9.0
ROOM = WIDTH - 2 * MARGIN
"""Inches from left to right."""
LONGEST = 16
"""Characters of a token that are shown at most."""
CHANCE, EDGE = 0.35, 0.3
"""Inches of a number behind its box, and of the way to the next column."""
BEFORE = 60
"""Characters of the text before the tree that the caption quotes."""


@dataclass(frozen=True)
class Place:
    """Where a node stands: column is its depth."""

    column: int
    row: float


def draft_tree_picture(name: str, trace: Trace) -> Picture | None:
    """The most telling step of a decode; None where nothing was guessed."""
    number = telling_step(trace)
    if number is None:
        return None
    step = trace.steps[number]
    tree = step.tree
    assert tree is not None
    nodes = extended(step)
    places = layout(nodes)
    return Picture(
        name=f"{name}-draft-tree",
        title=f"A draft tree: {trace.model} with {drafting(trace.model, trace.drafting)}",
        subtitle=f"step {number} of {len(trace.steps) - 1}",
        caption=_caption(trace, number, step, tree),
        height=0.55 + ROW * (1 + max(place.row for place in places)),
        draw=partial(_draw, nodes, places),
        sources=(name,),
    )


def telling_step(trace: Trace) -> int | None:
    """The step with the most accepted guesses among those whose tree branches and fits on a page; failing
    that, the one with the smallest tree that guesses anything.
    """
    guessing = [
        (number, step.tree, step)
        for number, step in enumerate(trace.steps)
        if step.tree is not None and len(step.tree.tokens) > 1
    ]
    fitting = [
        (number, tree, step)
        for number, tree, step in guessing
        if len(tree.tokens) <= MOST_NODES
        and max(tree.depths) <= MOST_DEPTH
        and len(set(tree.parents)) < len(tree.parents)
    ]
    if fitting:
        return max(fitting, key=lambda one: (len(one[2].path), len(one[1].tokens)))[0]
    return min(guessing, key=lambda one: len(one[1].tokens))[0] if guessing else None


@dataclass(frozen=True)
class Node:
    """A node as it is drawn. chance: of the path; None for the token that the base model added after it."""

    parent: int
    text: str
    source: int
    chance: float | None
    accepted: bool


def extended(step: TracedStep) -> list[Node]:
    """The tree's nodes, and the base model's own token below the last accepted one."""
    tree = step.tree
    assert tree is not None
    nodes = [
        Node(parent, text, source, chance, place in step.path)
        for place, (parent, text, source, chance) in enumerate(
            zip(tree.parents, tree.texts, tree.sources, tree.probabilities, strict=True)
        )
    ]
    if step.path and len(step.tokens) == len(step.path):
        nodes.append(Node(step.path[-1], step.texts[-1], 0, None, True))
    return nodes


def layout(nodes: list[Node]) -> list[Place]:
    """A row for each leaf, a parent on the row of its first child; the accepted path comes first."""
    below: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        below.setdefault(node.parent, []).append(number)
    places: dict[int, Place] = {}
    rows = 0

    def put(number: int, column: int) -> None:
        nonlocal rows
        children = sorted(below.get(number, []), key=lambda child: not nodes[child].accepted)
        places[number] = Place(column, rows)
        for child in children:
            put(child, column + 1)
        rows += not children

    put(0, 0)
    return [places[number] for number in range(len(nodes))]


def _caption(trace: Trace, number: int, step: TracedStep, tree: TracedTree) -> str:
    before = shown("".join(text for one in trace.steps[:number] for text in one.texts))
    # The last token before the step is the root itself.
    before = before.removesuffix(shown(tree.texts[0]))
    begins = f"after “{'…' if len(before) > BEFORE else ''}{before[-BEFORE:]}” " if before else ""
    accepted = len(step.path) - 1
    count = len(tree.tokens) - 1
    promised = sum(tree.probabilities)
    return (
        f"One forward pass {begins}checks all {count} guesses at once. Each number is the estimated "
        "probability that the base model accepts the path up to there; with the root's 1 their sum, "
        f"{promised:.2f}, is how many tokens the step was expected to bring. Thick frames: the path that it "
        f"did accept, {accepted} guess{'es' if accepted != 1 else ''}, and the token that it adds itself. "
        "Digits say which head guessed, L prompt lookup."
    )


def _draw(nodes: list[Node], places: list[Place], figure: Figure, theme: Theme) -> None:
    legend_above(figure, 5, [_patch(source, theme) for source in sources_in(node.source for node in nodes)])
    axes = figure.subplots()
    axes.set_axis_off()
    # One unit is one inch, so that boxes can be measured by their text.
    axes.set_xlim(0, ROOM)
    axes.set_ylim(0.6 + max(place.row for place in places), -0.6)
    labels, starts = columns(nodes, places)
    ends = [
        _draw_node(axes, node, label, starts[place.column], place.row, theme)
        for node, label, place in zip(nodes, labels, places, strict=True)
    ]
    last: dict[int, float] = {}
    for number in sorted(range(len(nodes)), key=lambda number: places[number].row):
        parent = nodes[number].parent
        if parent >= 0:
            above = last.setdefault(parent, places[parent].row)
            turn = starts[places[number].column] - 0.12
            _draw_edge(axes, nodes[number], (ends[parent] + 0.04, turn), (above, places[number].row), theme)
            last[parent] = places[number].row


def columns(nodes: list[Node], places: list[Place]) -> tuple[list[str], list[float]]:
    """What stands in each node's box, cut so that all fits; and where each column begins, in inches."""
    for most in range(LONGEST, 2, -1):
        labels = [f"{source_letter(node.source)} {shown(node.text, most)}".lstrip() for node in nodes]
        labels = [
            label if node.source else shown(node.text, most)
            for label, node in zip(labels, nodes, strict=True)
        ]
        widths = [0.0] * (1 + max(place.column for place in places))
        for label, place in zip(labels, places, strict=True):
            widths[place.column] = max(widths[place.column], width(len(label), SIZE) + CHANCE + EDGE)
        if sum(widths) <= ROOM:
            break
    # What is left is shared among the edges, up to a limit.
    spare = min(0.5, max(0.0, ROOM - sum(widths)) / len(widths))
    starts = [0.08]
    for one in widths[:-1]:
        starts.append(starts[-1] + one + spare)
    return labels, starts


def _draw_node(axes: Axes, node: Node, label: str, left: float, row: float, theme: Theme) -> float:
    """Draw it; returns where its box and its number end, in inches."""
    style: dict[str, Any] = {
        "boxstyle": "round,pad=0.25",
        "facecolor": source_fill(node.source, theme),
        "edgecolor": theme.text if node.accepted else theme.muted,
        "linewidth": 2.0 if node.accepted else 0.7,
        "linestyle": "-" if node.accepted else (0, (3, 2)),
    }
    axes.text(left, row, label, family=FONT, size=SIZE, va="center", bbox=style)
    end = left + width(len(label), SIZE) + 0.06
    if node.chance is not None and node.parent >= 0:
        axes.text(end, row, f"{node.chance:.2f}", size=SIZE - 1, color=theme.muted, va="center")
        end += 0.27
    return end


def _draw_edge(
    axes: Axes, node: Node, across: tuple[float, float], down: tuple[float, float], theme: Theme
) -> None:
    """From the parent, or from the edge to the child above, to this child; thicker where likelier."""
    (left, turn), (above, row) = across, down
    first = above == row
    axes.plot(
        [left if first else turn, turn, turn + 0.06],
        [above, row, row],
        color=theme.text if node.accepted else theme.muted,
        lw=0.8 + 2.0 * (1.0 if node.chance is None else node.chance),
        ls="-" if node.accepted else (0, (3, 2)),
        zorder=1,
        solid_capstyle="butt",
    )


def _patch(source: int, theme: Theme) -> Artist:
    from matplotlib.patches import Patch

    name = f"{source_letter(source)}  {source_name(source)}".strip()
    return Patch(facecolor=source_fill(source, theme), edgecolor=theme.muted, label=name)
