"""What typical acceptance brings and loses, epsilon by epsilon, beside exact sampling and greedy decoding.

    python benchmarks/typical.py MODEL --suite FILE.jsonl [--heads DIR] [--limit 8] [--max-tokens 128]
        [--temperature 0.7] [--epsilons 0.01,0.03,0.09,0.2,0.3] [--json OUT]

delta is the square root of epsilon, as the paper recommends (so are this project's defaults, 0.09 and 0.3).
All sides write with heads alone and 16 rows, prompt n with seed n, and each text is then read once by the
base model, at the temperature, whatever it was written at. Means over all tokens, in nats:

    log_likelihood  of the emitted token; entropy: what its negative would be, but for chance, in drawn texts
    divergence      KL(q || p) of the rule's distribution from the base model's, given the text so far and the
                    tree: -log p of tokens that were put there without a draw (guesses accepted by typical
                    acceptance, all tokens of greedy decoding), 0 where the token was drawn from p
    not_drawn       share of tokens that the base model, with the same seed, would not have drawn at their
                    place after the same text

Of exact sampling the last two are 0 by construction.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medusa_decoding.bench.loss import Loss, ReadText, imposed_tokens, read_text
from medusa_decoding.decoding import Acceptance, ExactAcceptance, Statistics, TypicalAcceptance
from medusa_decoding.generation import GenerationOptions, Medusa

ROWS = 16


@dataclass(frozen=True)
class Side:
    """A rule, and the temperature at which texts are written."""

    rule: Acceptance
    temperature: float

    @property
    def settings(self) -> dict[str, float]:
        """Of the rule."""
        if isinstance(self.rule, TypicalAcceptance):
            return {"epsilon": self.rule.epsilon, "delta": self.rule.delta}
        return {}


def sides_of(temperature: float, epsilons: Sequence[float]) -> dict[str, Side]:
    """Greedy, exact, and typical with each epsilon."""
    sides = {"greedy": Side(ExactAcceptance(), 0.0), "exact": Side(ExactAcceptance(), temperature)}
    for epsilon in epsilons:
        rule = TypicalAcceptance(epsilon, math.sqrt(epsilon))
        sides[f"typical, epsilon {epsilon:g}"] = Side(rule, temperature)
    return sides


def write_and_read(
    medusa: Medusa, side: Side, ids: list[int], options: GenerationOptions
) -> tuple[Statistics, ReadText]:
    """One text, written as the side says and read at the temperature of `options`."""
    writer = replace(medusa, acceptance=side.rule)
    made = writer.generate(ids, options, temperature=side.temperature)
    imposed = imposed_tokens(side.rule, side.temperature, made.sources)
    return made.statistics, read_text(medusa.engine, ids, made.tokens, options.sampling, imposed)


def figures(side: Side, found: Sequence[tuple[Statistics, ReadText]]) -> dict[str, Any]:
    """Of all texts of one side. acceleration_rate: tokens per step after the prefill."""
    total = Statistics()
    for one, _ in found:
        total.add(one)
    loss = Loss.of([text for _, text in found])
    return {
        **side.settings,
        "temperature": side.temperature,
        "lossless": side.rule.lossless,
        "acceleration_rate": total.acceleration_rate,
        **asdict(loss),
    }


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument(
        "--epsilons",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.01, 0.03, 0.09, 0.2, 0.3],
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.temperature <= 0:
        parser.error("at temperature 0 typical acceptance is greedy: give a --temperature above 0")
    return chosen


def main() -> None:
    """Run, print, write the JSON."""
    chosen = arguments()
    import medusa_decoding
    from medusa_decoding.bench.machine import describe_machine
    from medusa_decoding.bench.suite import load_suite, round_robin

    medusa = medusa_decoding.load(
        chosen.model, engine="cpu", heads=chosen.heads, threads=chosen.threads, draft="heads", tree=ROWS
    )
    if medusa.heads is None:
        raise SystemExit(f"{chosen.model} has no heads here: name some by --heads")
    questions = round_robin(load_suite(chosen.suite), chosen.limit)
    sides = sides_of(chosen.temperature, chosen.epsilons)
    written_as = GenerationOptions.of(
        None, {"max_tokens": chosen.max_tokens, "temperature": chosen.temperature}
    )
    found: dict[str, list[tuple[Statistics, ReadText]]] = {name: [] for name in sides}
    for number, question in enumerate(questions):
        ids = medusa.encode(question.turns[0])[:900]
        options = GenerationOptions.of(written_as, {"seed": number})
        for name, side in sides.items():
            found[name].append(write_and_read(medusa, side, ids, options))
        print(f"{number + 1}/{len(questions)}", file=sys.stderr)
    settings = ("limit", "max_tokens", "temperature", "epsilons")
    report = {
        "machine": describe_machine(),
        "model": chosen.model,
        "heads": medusa.heads_name,
        "engine": str(getattr(medusa.engine, "description", "")),
        "suite": chosen.suite.name,
        "settings": {**{name: getattr(chosen, name) for name in settings}, "rows": ROWS},
        "sides": {name: figures(side, found[name]) for name, side in sides.items()},
    }
    text = json.dumps(report, indent=1)
    if chosen.json:
        chosen.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
