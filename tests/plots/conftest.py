"""Figures of made-up results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from medusa_decoding.plots.picture import Picture
from medusa_decoding.plots.theme import LIGHT
from medusa_decoding.plots.write import pictures_of
from tests.plots import made

Draw = Callable[..., tuple[Picture, Figure]]


@pytest.fixture
def drawn(tmp_path: Path) -> Draw:
    """The only picture of these results, by name, and its figure; the `place`-th where there are several."""

    def draw(place: int = 0, **results: made.Json) -> tuple[Picture, Figure]:
        paths = [made.written(tmp_path, name, content) for name, content in results.items()]
        picture = pictures_of(paths)[place]
        return picture, picture.figure(LIGHT)

    return draw
