"""What larger draft trees bring and cost, and where the planner is among them.

Compares plain decoding, best-first trees of n rows at each step (`--tree n`) and the planner's own (`--tree
auto`), prompt by prompt in rotating order. Every text must be the plain one's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sides import Side, figures, race

from medusa_decoding.decoding import AdaptivePlanner, BestFirstPlanner
from medusa_decoding.generation import GenerationOptions, Medusa

ROWS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


def sides_of(medusa: Medusa) -> dict[str, Side]:
    """Plain decoding, each size, and the planner."""
    planner = medusa.planner
    if not isinstance(planner, AdaptivePlanner):
        raise SystemExit("nothing guesses here: name heads by --heads")
    return {
        "plain": Side(medusa, speculative=False),
        **{f"{rows} rows": Side(replace(medusa, planner=BestFirstPlanner(rows))) for rows in ROWS},
        "auto": Side(replace(medusa, planner=AdaptivePlanner(planner.cost, planner.limit))),
    }


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--draft", default="heads", choices=["heads", "both"])
    parser.add_argument("--limit", type=int, default=13)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run, print, write the JSON."""
    chosen = arguments()
    import medusa_decoding
    from medusa_decoding.bench.machine import describe_machine
    from medusa_decoding.bench.suite import load_suite, round_robin

    medusa = medusa_decoding.load(
        chosen.model, engine="cpu", heads=chosen.heads, threads=chosen.threads, draft=chosen.draft
    )
    engine: Any = medusa.engine
    questions = round_robin(load_suite(chosen.suite), chosen.limit)
    prompts = [medusa.encode(question.turns[0])[:900] for question in questions]
    options = GenerationOptions.of(None, {"max_tokens": chosen.max_tokens})
    runs = race(sides_of(medusa), prompts, options)
    found = {name: figures(one, runs["plain"]) for name, one in runs.items() if name != "plain"}
    report = {
        "machine": describe_machine(),
        "model": chosen.model,
        "heads_name": Path(medusa.heads_name or "").name,
        "drafting": medusa.drafting,
        "engine": engine.description,
        "suite": chosen.suite.name,
        "settings": {
            "limit": chosen.limit,
            "max_tokens": chosen.max_tokens,
            "threads": engine.threads,
        },
        "prompts": len(prompts),
        "trees": [{"rows": rows, "side": found[f"{rows} rows"]} for rows in ROWS],
        "auto": found["auto"],
    }
    text = json.dumps(report, indent=1)
    if chosen.json:
        chosen.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
