"""What an export is: the facts that its page and the command tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.decoding.tree import Choices
from medusa_decoding.export.config import Target
from medusa_decoding.heads.config import HeadsConfig

CHAINS: frozenset[Target] = frozenset({"v2", "vllm", "tgi"})
"""Targets whose engines draft each head's likeliest token and no tree."""


@dataclass(frozen=True)
class Export:
    """Heads in the layout of another engine.

    to: what was asked for. layout: the one that `heads.formats` calls so. out: the folder. given: what the
    heads were. name: what they are called. base: what the engine calls the base model; None where nobody
    knows. file: the quantised file of it that the heads were trained on, if they were. choices: the static
    tree that goes along; None for engines that draft chains. tuned: whether `tune` found that tree; it is a
    chain if not. losses: what the layout has no place for, a phrase each. size: of the files, in bytes.
    """

    to: Target
    layout: str
    out: Path
    given: HeadsConfig
    name: str
    base: str | None
    file: str | None
    choices: Choices | None
    tuned: bool
    losses: tuple[str, ...]
    size: int

    @property
    def choices_text(self) -> str:
        """The tree as engines take it on their command line."""
        return json.dumps(self.choices or [], separators=(",", ":"))


def chain(heads: int) -> Choices:
    """The tree that is each head's likeliest token: what to take where no better one is known.

    >>> chain(2)
    ((0,), (0, 0))
    """
    return tuple((0,) * depth for depth in range(1, heads + 1))


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB" if size < 100e6 else f"{size / 1e6:,.0f} MB"
