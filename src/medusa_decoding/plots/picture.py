"""One picture: a title, what to draw, and a caption that says what to see; drawn in a theme, saved as a file.

The same content gives the same bytes (with one version of matplotlib): no dates, no random ids, none of the
user's own matplotlib settings.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medusa_decoding.plots.theme import Theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

Format = Literal["svg", "png"]

WIDTH = 8.0
"""Inches; GitHub shows a picture of this width at its own size, so 10 points are read as 13 pixels."""
MARGIN = 0.12
CAPTION_SIZE = 9.0
CAPTION_COLUMNS = 118
LINE = 0.17
"""Inches from line to line of a caption."""
LEGEND = 0.27
"""Inches of a line of a legend above the drawing."""
DOTS = 160
"""Per inch, of a PNG."""


@dataclass(frozen=True)
class Picture:
    """What is to be drawn.

    name: of its files, without theme and suffix. subtitle: model, engine and machine. caption: what to see.
    height: inches of the drawing itself. draw: puts it into an empty figure. sources: names of the result
    files that it shows.
    """

    name: str
    title: str
    subtitle: str
    caption: str
    height: float
    draw: Callable[[Figure, Theme], None]
    sources: tuple[str, ...]

    def figure(self, theme: Theme) -> Figure:
        """The whole figure: title, drawing and caption."""
        from matplotlib.figure import Figure

        lines = textwrap.wrap(self.caption, CAPTION_COLUMNS)
        below = 2 * MARGIN + LINE * len(lines)
        above = 0.34 + (0.2 if self.subtitle else 0.0)
        height = above + self.height + below
        with drawn_in(theme):
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            engine: Any = figure.get_layout_engine()
            engine.set(rect=(0, below / height, 1, self.height / height), w_pad=MARGIN, h_pad=0.04)
            left = MARGIN / WIDTH
            top = 1 - MARGIN / height
            figure.text(left, top, self.title, size=12, weight="bold", va="top")
            figure.text(
                left, top - 0.24 / height, self.subtitle, size=CAPTION_SIZE, color=theme.muted, va="top"
            )
            figure.text(
                left,
                (below - MARGIN) / height,
                "\n".join(lines),
                size=CAPTION_SIZE,
                va="top",
                linespacing=1.3,
            )
            self.draw(figure, theme)
            _settle(figure)
        return figure

    def save(self, path: Path, theme: Theme) -> None:
        """Write the picture to `path`, as its suffix says."""
        form = path.suffix.removeprefix(".")
        notes: dict[str, Any] = (
            {"Date": None, "Creator": None, "Title": self.title, "Description": self.caption}
            if form == "svg"
            else {"Software": None, "Title": self.title, "Description": self.caption}
        )
        figure = self.figure(theme)
        with drawn_in(theme):
            figure.savefig(path, format=form, metadata=notes, dpi=DOTS)
        if form == "svg":
            # Letters are shapes, so no text depends on the indentation, a tenth of the file.
            drawn = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"\n\s+", "\n", drawn), encoding="utf-8", newline="\n")


def _settle(figure: Figure) -> None:
    """Arrange the drawing once and round where its parts stand: the last digits differ from run to run."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        x, y, width, height = axes.get_position().bounds
        axes.set_position((round(x, 4), round(y, 4), round(width, 4), round(height, 4)))


def legend_above(figure: Figure, columns: int, handles: Sequence[Artist] | None = None) -> None:
    """A legend of everything that has a label, or of `handles`, between title and drawing."""
    engine: Any = figure.get_layout_engine()
    left, below, width, height = engine.get()["rect"]
    given = {} if handles is None else {"handles": handles}
    made = figure.legend(
        loc="upper left",
        bbox_to_anchor=(MARGIN / WIDTH, below + height),
        ncols=columns,
        borderaxespad=0,
        borderpad=0,
        **given,
    )
    lines = -(-len(made.get_texts()) // columns)
    engine.set(rect=(left, below, width, height - lines * LEGEND / figure.get_figheight()))


@contextmanager
def drawn_in(theme: Theme) -> Iterator[None]:
    """matplotlib's own defaults and the theme, whatever the user's settings are."""
    import matplotlib.style

    with matplotlib.style.context(["default", theme.settings()]):
        yield
