"""Tokens as they are shown: who guessed them, and their text in a font of one width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medusa_decoding.plots.theme import Theme

FONT = "DejaVu Sans Mono"
EM = 0.602
"""Width of each of its characters, in units of its size."""
LOOKUP = -1
_SHOWN = {"\n": "↵", "\t": "⇥", "\r": "␍"}


def source_name(source: int) -> str:
    """Who guessed."""
    if source == LOOKUP:
        return "prompt lookup"
    return f"head {source}" if source else "base model"


def source_letter(source: int) -> str:
    """One sign for it, so that colour need not tell."""
    if source == LOOKUP:
        return "L"
    return str(source) if source else ""


def source_fill(source: int, theme: Theme) -> str:
    """Its colour: lookup's is that of no head."""
    if source == LOOKUP:
        return theme.fills[4]
    # The place of lookup's colour is passed over.
    return theme.plain if not source else theme.fill(source - 1 if source <= 4 else source)


def sources_in(sources: Iterable[int]) -> list[int]:
    """Each once: the base model, the heads in order, lookup."""
    found = set(sources)
    return [*sorted(source for source in found if source >= 0), *([LOOKUP] if LOOKUP in found else [])]


def width(characters: int, size: float) -> float:
    """Inches that so many characters take."""
    return characters * EM * size / 72


def shown(text: str, most: int | None = None) -> str:
    """Signs for what cannot be seen or has no glyph; cut to `most` characters."""
    from matplotlib.font_manager import findfont, get_font

    if text and not text.strip(" "):
        text = "␣" * len(text)
    font: Any = get_font(findfont(FONT))
    known = font.get_charmap()
    clean = "".join(
        _SHOWN.get(sign, sign if ord(sign) in known and (sign.isprintable() or sign == " ") else "\ufffd")
        for sign in text
    )
    if most is not None and len(clean) > most:
        return clean[: max(1, most - 1)] + "…"
    return clean or "\ufffd"
