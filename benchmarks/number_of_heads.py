"""How many heads pay: the first 1, 2, ... of a set of heads, with 16 rows and with --tree auto, in one run.

    python benchmarks/number_of_heads.py MODEL --suite FILE.jsonl [--heads DIR] [--limit 8] [--max-tokens 128]
        [--json OUT]

Heads are trained on their own, so the first K of them are a set of K heads. Plain decoding and all sets run
on one loaded model, prompt by prompt, each prompt beginning with another side; lookup is off. Drafting is
timed apart, after passes of one row as in decoding, and --tree auto goes by that time and by one profile of
the machine for all sets. Times are medians; rates are those of all tokens. Figures stand there once more
without the texts that loop.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sides import Opened, Side, command_line, figures, publish, race, rotated

from medusa_decoding.bench.run import Run
from medusa_decoding.decoding import AdaptivePlanner, BestFirstPlanner, StepCost
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.loops import is_loop
from medusa_decoding.tuning.trial import Trial

ROWS = 16
CONTEXT = 256
"""Tokens before the passes after which drafting is timed."""
DRAFTS = 51


def sets_of_heads(medusa: Medusa, model: str, heads: str) -> dict[int, Medusa]:
    """The same model and engine with the first 1, 2, ... heads; of one set, all."""
    from medusa_decoding.generation.on_cpu import with_heads
    from medusa_decoding.generation.packaged import heads_location
    from medusa_decoding.heads.first import first_heads
    from medusa_decoding.heads.plain import read_arrays
    from medusa_decoding.models import resolve

    location = heads_location(heads, resolve(model), medusa.fingerprint)
    if location is None or not isinstance(medusa.planner, AdaptivePlanner):
        raise SystemExit(f"{model} has no heads here: name some by --heads")
    config, state = read_arrays(location)
    return {
        count: with_heads(
            medusa, *first_heads(config, state, count), f"{medusa.heads_name}, the first {count}"
        )
        for count in range(1, config.num_heads + 1)
    }


def drafting_times(sets: dict[int, Medusa], rounds: int = DRAFTS) -> dict[int, float]:
    """Milliseconds of asking each set once, medians of interleaved rounds."""
    trials = {count: Trial(one.engine, one.drafter) for count, one in sets.items()}
    for trial in trials.values():
        trial.fill(CONTEXT)
    times: dict[int, list[float]] = {count: [] for count in trials}
    for number in range(rounds + 1):
        for count in rotated(list(trials), number):
            # Decoding too finds the heads' weights gone from the caches.
            trials[count].step(1)
            seconds = trials[count].draft(1)
            if number:
                times[count].append(seconds)
    for trial in trials.values():
        trial.close()
    return {count: 1000 * statistics.median(found) for count, found in times.items()}


def sides_of(medusa: Medusa, sets: dict[int, Medusa], drafting: dict[int, float]) -> dict[str, Side]:
    """Plain decoding, and each set with either tree."""
    assert isinstance(medusa.planner, AdaptivePlanner)
    cost, limit = medusa.planner.cost, medusa.planner.limit
    sides = {"plain": Side(medusa, speculative=False)}
    for count, one in sets.items():
        known = StepCost(cost.rows, cost.contexts, {1: drafting[count]})
        sides[f"{count}, {ROWS} rows"] = Side(replace(one, planner=BestFirstPlanner(ROWS)))
        sides[f"{count}, auto"] = Side(replace(one, planner=AdaptivePlanner(known, limit)))
    return sides


def by_count(runs: dict[str, list[Run]], drafting: dict[int, float], kept: Sequence[int]) -> dict[str, Any]:
    """The figures of each number of heads over some prompts."""
    chosen = {name: [found[place] for place in kept] for name, found in runs.items()}
    return {
        "prompts": len(kept),
        "heads": [
            {
                "heads": count,
                "drafting_ms": milliseconds,
                f"{ROWS}_rows": figures(chosen[f"{count}, {ROWS} rows"], chosen["plain"]),
                "auto": figures(chosen[f"{count}, auto"], chosen["plain"]),
            }
            for count, milliseconds in drafting.items()
        ],
    }


def main() -> None:
    """Run, print, write the JSON."""
    chosen = command_line(__doc__, limit=8).parse_args()
    opened = Opened.of(chosen, "heads")
    sets = sets_of_heads(opened.medusa, chosen.model, chosen.heads)
    drafting = drafting_times(sets)
    runs = race(sides_of(opened.medusa, sets, drafting), opened.prompts, opened.options)
    everything = range(len(opened.prompts))
    kept = [place for place in everything if not is_loop(runs["plain"][place].tokens)]
    report = {
        **opened.heading,
        **by_count(runs, drafting, everything),
        "without_loops": by_count(runs, drafting, kept),
    }
    publish(report, chosen.json)


if __name__ == "__main__":
    main()
