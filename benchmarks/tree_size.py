"""What larger draft trees bring and cost, and where the planner is among them.

Compares plain decoding, best-first trees of n rows at each step (`--tree n`) and the planner's own (`--tree
auto`), prompt by prompt in rotating order. Every text must be the plain one's.
"""

from __future__ import annotations

from dataclasses import replace

from sides import Opened, Side, command_line, figures, publish, race

from medusa_decoding.decoding import AdaptivePlanner, BestFirstPlanner
from medusa_decoding.generation import Medusa

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


def main() -> None:
    """Run, print, write the JSON."""
    parser = command_line(__doc__, limit=13)
    parser.add_argument("--draft", default="heads", choices=["heads", "both"])
    chosen = parser.parse_args()
    opened = Opened.of(chosen, chosen.draft)
    runs = race(sides_of(opened.medusa), opened.prompts, opened.options)
    found = {name: figures(one, runs["plain"]) for name, one in runs.items() if name != "plain"}
    report = {
        **opened.heading,
        "drafting": opened.medusa.drafting,
        "prompts": len(opened.prompts),
        "trees": [{"rows": rows, "side": found[f"{rows} rows"]} for rows in ROWS],
        "auto": found["auto"],
    }
    publish(report, chosen.json)


if __name__ == "__main__":
    main()
