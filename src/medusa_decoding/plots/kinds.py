"""The kinds of result files that can be drawn; one file of this folder for each kind of picture."""

from __future__ import annotations

from typing import Any

from medusa_decoding.plots import accuracy, categories, costs, decodes, sizes, speeds
from medusa_decoding.plots.results import Kind

KINDS: tuple[Kind[Any], ...] = (
    speeds.KIND,
    categories.BENCH,
    categories.DRAFTERS,
    costs.KIND,
    sizes.HEADS,
    sizes.TREES,
    accuracy.TUNING,
    accuracy.TRAINING,
    decodes.KIND,
)
