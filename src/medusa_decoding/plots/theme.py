"""The two themes. Colours differ in brightness too and never stand alone: a marker, a line style, a
shade or a letter goes with each, so that pictures can be printed, and read by those who see no colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Name = Literal["light", "dark"]

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))


@dataclass(frozen=True)
class Theme:
    """Colours of a picture. series: of lines and bars, one after the other. fills: pale ones of the same
    hues, for boxes with text on them.
    """

    name: Name
    background: str
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]
    fills: tuple[str, ...]
    plain: str
    """Fill of what nobody guessed."""

    def colour(self, place: int) -> str:
        """Of the series at that place, counted from 0."""
        return self.series[place % len(self.series)]

    def fill(self, place: int) -> str:
        """The same hue, pale."""
        return self.fills[place % len(self.fills)]

    def shade(self, place: int, step: int, steps: int) -> str:
        """One of `steps` shades of a series' colour, from the colour itself towards the background."""
        share = 1 - 0.75 * step / max(1, steps - 1)
        pairs = zip(_channels(self.colour(place)), _channels(self.background), strict=True)
        return "#" + "".join(f"{round(share * ours + (1 - share) * behind):02x}" for ours, behind in pairs)

    def settings(self) -> dict[str, Any]:
        """For matplotlib."""
        return {
            "figure.facecolor": self.background,
            "axes.facecolor": self.background,
            "savefig.facecolor": self.background,
            "text.color": self.text,
            "axes.labelcolor": self.text,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.edgecolor": self.muted,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "xtick.color": self.text,
            "ytick.color": self.text,
            "hatch.color": self.background,
            "hatch.linewidth": 1.0,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "lines.linewidth": 1.8,
            "lines.markersize": 6,
            "text.parse_math": False,
            "svg.hashsalt": "medusa",
            "svg.fonttype": "path",
        }


def _channels(colour: str) -> tuple[int, ...]:
    """Red, green and blue of `#rrggbb`."""
    return tuple(bytes.fromhex(colour[1:]))


# Series: the Okabe-Ito palette, which most colour-blind readers tell apart; brighter on the dark background.
LIGHT = Theme(
    name="light",
    background="#ffffff",
    text="#1f2328",
    muted="#59636e",
    grid="#d8dee4",
    series=("#0072b2", "#d55e00", "#009e73", "#8f4a8f", "#b07d00", "#3a96c8", "#59636e", "#000000"),
    fills=("#b9dcf2", "#ffd0ad", "#b5e6d3", "#e9cbe6", "#f6e3a1", "#d4e9f5", "#d5d9de", "#c4c4c4"),
    plain="#f3f4f6",
)
DARK = Theme(
    name="dark",
    background="#0d1117",
    text="#e6edf3",
    muted="#9198a1",
    grid="#2b313a",
    series=("#4aa8e0", "#ff8a4c", "#2fc59a", "#d99ad5", "#f0c04a", "#9ad4f7", "#9198a1", "#ffffff"),
    fills=("#0b4a73", "#7a3705", "#0a5c46", "#5f2f63", "#65500c", "#2a6080", "#4a525c", "#6b6b6b"),
    plain="#1c222b",
)
THEMES: dict[Name, Theme] = {"light": LIGHT, "dark": DARK}
