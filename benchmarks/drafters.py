"""Heads, prompt lookup and both beside plain decoding, by category, in one run.

    python benchmarks/drafters.py MODEL --suite FILE.jsonl [--heads DIR] [--limit 40] [--max-tokens 128]
        [--rounds 3] [--json OUT]

All sides decode on one loaded model, prompt by prompt, each prompt beginning with another side, so what the
machine does meanwhile happens to all. A text's time is its median over the rounds. Planners learn from text
to text, each for its side. Figures stand there once more without the texts that loop.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sides import Opened, Side, command_line, publish, race

from medusa_decoding.bench.run import Run
from medusa_decoding.decoding import AdaptivePlanner, NoDrafter
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.loops import is_loop

DRAFTERS = ("heads", "lookup", "both")
Rounds = list[dict[str, list[Run]]]


def sides_of(medusa: Medusa) -> dict[str, Side]:
    """Plain decoding and each choice of drafters, each with a planner of its own."""
    planner = medusa.planner
    if medusa.heads is None or medusa.lookup is None or not isinstance(planner, AdaptivePlanner):
        raise SystemExit("there have to be heads, prompt lookup and --tree auto to compare")

    def side(**others: Any) -> Side:
        return Side(replace(medusa, planner=AdaptivePlanner(planner.cost, planner.limit), **others))

    return {
        "plain": Side(medusa, speculative=False),
        "heads": side(lookup=None),
        "lookup": side(drafter=NoDrafter(), heads=None),
        "both": side(),
    }


def seconds(rounds: Rounds, side: str, place: int) -> float:
    """Of decoding one text, the prefill left out: the median over the rounds."""
    runs = [runs[side][place] for runs in rounds]
    return statistics.median(run.counts(len(run.tokens)).seconds for run in runs)


def figures(rounds: Rounds, side: str, places: Sequence[int]) -> dict[str, float | None]:
    """Tokens per step and tokens per second of one side over some texts, and both beside plain decoding."""
    counts = [rounds[0][side][place].counts(len(rounds[0][side][place].tokens)) for place in places]
    tokens, steps = sum(one.tokens for one in counts), sum(one.steps for one in counts)
    taken = sum(seconds(rounds, side, place) for place in places)
    plain = sum(seconds(rounds, "plain", place) for place in places)
    return {
        "acceleration_rate": tokens / steps if steps else None,
        "tokens_per_second": tokens / taken if taken else None,
        "speedup": plain / taken if taken else None,
    }


def table(rounds: Rounds, groups: dict[str, list[int]]) -> dict[str, Any]:
    """The figures of each side and group of texts."""
    return {
        name: {"texts": len(places), **{side: figures(rounds, side, places) for side in DRAFTERS}}
        for name, places in groups.items()
        if places
    }


def main() -> None:
    """Run, print, write the JSON."""
    parser = command_line(__doc__, limit=40)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    opened = Opened.of(chosen)
    sides = sides_of(opened.medusa)
    rounds = [race(sides, opened.prompts, opened.options) for _ in range(chosen.rounds)]
    groups: dict[str, list[int]] = {"all": list(range(len(opened.prompts)))}
    for place, question in enumerate(opened.questions):
        groups.setdefault(question.category, []).append(place)
    plain = rounds[0]["plain"]
    kept = {
        name: [one for one in places if not is_loop(plain[one].tokens)] for name, places in groups.items()
    }
    report = {
        **opened.heading,
        "rounds": chosen.rounds,
        "identical": all(
            run.tokens == plain[place].tokens
            for runs in rounds
            for side in DRAFTERS
            for place, run in enumerate(runs[side])
        ),
        "categories": table(rounds, groups),
        "without_loops": table(rounds, kept),
    }
    publish(report, chosen.json)


if __name__ == "__main__":
    main()
