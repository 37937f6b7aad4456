"""Several ways to decode on one loaded model, raced prompt by prompt."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medusa_decoding.bench.run import Run, run_once
from medusa_decoding.generation import GenerationOptions, Medusa


@dataclass(frozen=True)
class Side:
    """One way to decode. The planner is its own: what one learns of a text is not the other's."""

    medusa: Medusa
    speculative: bool = True


def rotated(names: list[Any], number: int) -> list[Any]:
    """The same names, beginning with another each time."""
    first = number % len(names)
    return names[first:] + names[:first]


def race(
    sides: dict[str, Side], prompts: Sequence[list[int]], options: GenerationOptions
) -> dict[str, list[Run]]:
    """All prompts on all sides, after a few tokens to warm up: each side's runs, in the prompts' order."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for side in sides.values():
        run_once(
            side.medusa,
            prompts[0],
            options.model_copy(update={"max_tokens": 8}),
            speculative=side.speculative,
        )
    for number, ids in enumerate(prompts):
        for name in rotated(list(sides), number):
            side = sides[name]
            runs[name].append(run_once(side.medusa, ids, options, speculative=side.speculative))
        print(f"{number + 1}/{len(prompts)}", file=sys.stderr)
    return runs


def figures(runs: Sequence[Run], plain: Sequence[Run]) -> dict[str, Any]:
    """Of one side beside plain decoding. speedup: the median over prompts; identical: equal texts."""
    counts = [run.counts(len(run.tokens)) for run in runs]
    others = [run.counts(len(run.tokens)) for run in plain]
    rates = [
        (one.tokens / one.seconds) / (other.tokens / other.seconds)
        for one, other in zip(counts, others, strict=True)
        if one.tokens and other.tokens
    ]
    steps = sum(one.steps for one in counts)
    return {
        "acceleration_rate": sum(one.tokens for one in counts) / steps if steps else None,
        "rows_per_step": sum(one.nodes for one in counts) / steps if steps else None,
        "speedup": statistics.median(rates) if rates else None,
        "identical": sum(one.tokens == other.tokens for one, other in zip(runs, plain, strict=True)),
    }
