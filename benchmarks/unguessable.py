"""What heads cost on text they cannot guess: plain decoding beside heads that are always wrong, in one run.

    python benchmarks/unguessable.py MODEL --suite FILE.jsonl [--limit 12] [--tokens 128] [--json OUT]

The heads run as they are, with the same confidence and at the same cost, but each guess is moved to another
token, so none comes true. The planner does not know; it has to find out, with each text anew (`--fresh`) or
going on from the last one. Each prompt is decoded several times both ways, in turn; of each way the median
counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medusa_decoding.decoding import Context, Proposals


class Wrong:
    """A drafter's guesses, each moved to a token that it did not guess."""

    def __init__(self, drafter: Any, vocabulary: int) -> None:
        self._drafter, self._vocabulary = drafter, vocabulary

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        """As confident as the drafter."""
        return [
            Proposals((found.tokens + self._vocabulary // 2 + 1) % self._vocabulary, found.probabilities)
            for found in self._drafter.propose(contexts)
        ]


def main() -> None:
    """Run, print the figures, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="forget, after each text, what was learnt")
    parser.add_argument("--json")
    chosen = parser.parse_args()

    import medusa_decoding
    from medusa_decoding.bench.machine import describe_machine
    from medusa_decoding.bench.suite import load_suite, round_robin
    from medusa_decoding.decoding import AdaptivePlanner

    medusa = medusa_decoding.load(chosen.model, heads=chosen.heads, engine="cpu", tree="auto", draft="heads")
    if not isinstance(medusa.planner, AdaptivePlanner):
        raise SystemExit(f"{chosen.model} has no heads here: name some by --heads")
    cost, limit = medusa.planner.cost, medusa.planner.limit
    medusa.drafter = Wrong(medusa.drafter, medusa.engine.vocabulary_size)
    ratios, emitted, steps = list[float](), 0, 0
    for question in round_robin(load_suite(Path(chosen.suite)), chosen.limit):
        ids = medusa.encode(question.turns[0])[:900]
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(2 * chosen.rounds):
            speculative = (number + 1) // 2 % 2 == 0
            if chosen.fresh:
                medusa.planner = AdaptivePlanner(cost, limit)
            found = medusa.generate(
                ids, max_tokens=chosen.tokens + 1, ignore_eos=True, speculative=speculative
            )
            seconds[speculative].append(found.statistics.decode_seconds)
            if speculative:
                emitted, steps = emitted + chosen.tokens, steps + found.statistics.steps
        ratios.append(statistics.median(seconds[False]) / statistics.median(seconds[True]))
    report = {
        "machine": describe_machine(),
        "model": chosen.model,
        "settings": {k: v for k, v in vars(chosen).items() if k in ("limit", "tokens", "rounds", "fresh")},
        "tokens_per_step": emitted / steps,
        "speed_of_plain": {"median": statistics.median(ratios), "lowest": min(ratios), "all": ratios},
    }
    print(json.dumps(report, indent=1))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
