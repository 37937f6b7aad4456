"""Several ways to decode on one loaded model, raced prompt by prompt, and what such benchmarks share."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medusa_decoding.bench.machine import describe_machine
from medusa_decoding.bench.run import Run, run_once
from medusa_decoding.bench.suite import Question, load_suite, round_robin
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


def command_line(description: str | None, limit: int) -> argparse.ArgumentParser:
    """The arguments of each of these benchmarks; `limit` is how many prompts there are by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--limit", type=int, default=limit)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    return parser


@dataclass(frozen=True)
class Opened:
    """What is raced. prompts: the questions' first turns as token ids, cut to 900."""

    medusa: Medusa
    questions: list[Question]
    prompts: list[list[int]]
    options: GenerationOptions
    heading: dict[str, Any]

    @classmethod
    def of(cls, chosen: argparse.Namespace, draft: str = "both") -> Opened:
        """The model on the CPU engine, and the suite's prompts."""
        import medusa_decoding

        medusa = medusa_decoding.load(
            chosen.model, engine="cpu", heads=chosen.heads, threads=chosen.threads, draft=draft
        )
        engine: Any = medusa.engine
        questions = round_robin(load_suite(chosen.suite), chosen.limit)
        heading = {
            "machine": describe_machine(),
            "model": chosen.model,
            "heads_name": Path(medusa.heads_name or "").name,
            "engine": engine.description,
            "suite": chosen.suite.name,
            "settings": {"limit": chosen.limit, "max_tokens": chosen.max_tokens, "threads": engine.threads},
        }
        prompts = [medusa.encode(question.turns[0])[:900] for question in questions]
        options = GenerationOptions.of(None, {"max_tokens": chosen.max_tokens})
        return cls(medusa, questions, prompts, options, heading)


def publish(report: dict[str, Any], path: Path | None) -> None:
    """Print it, and write it to a file."""
    text = json.dumps(report, indent=1)
    if path:
        path.write_text(text + "\n", encoding="utf-8")
    print(text)
