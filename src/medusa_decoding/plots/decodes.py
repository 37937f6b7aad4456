"""A recorded decode: one of its draft trees, and its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medusa_decoding.generation.trace import Trace
from medusa_decoding.plots.draft_tree import draft_tree_picture
from medusa_decoding.plots.picture import Picture
from medusa_decoding.plots.results import Given, Kind
from medusa_decoding.plots.token_strip import strip_picture


def pictures(given: Sequence[Given[Trace]]) -> Iterator[Picture]:
    """Both, for each decode."""
    for one in given:
        tree = draft_tree_picture(one.name, one.content)
        if tree is not None:
            yield tree
        yield strip_picture(one.name, one.content)


KIND = Kind(
    "a decode ('medusa generate --trace')",
    frozenset({"steps", "prompt", "finish_reason", "acceleration_rate"}),
    Trace,
    pictures,
)
