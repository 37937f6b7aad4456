"""The report of a server's benchmark: one JSON object, and a table for people.

    server, model, suite, settings
    client      the machine that asked; where the server runs elsewhere it does not tell the server's speed
    runs        one for each level of load: concurrency or rate, and of each variant
                requests, failed, tokens, seconds, tokens_per_second (all answers together),
                ttft, tpot: mean, p50 and p95 in milliseconds,
                prompt_tokens, cached_tokens (of the prompts, where the server tells), acceleration_rate
                ratio      tokens per second with speculation over those without
                identical  answers that are the same in both, of those that both gave
    failures    turns that got no answer, and why

A percentile is the smallest value that so many per cent of the values do not exceed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from medusa_decoding.bench.machine import describe_host
from medusa_decoding.bench.server import AS_SERVED, MEDUSA, PLAIN, Load, Run, Turn
from medusa_decoding.bench.server_config import ServerBenchConfig
from medusa_decoding.bench.suite import Question, categories

Json = dict[str, Any]
PERCENTILES = (50, 95)


def build_report(
    config: ServerBenchConfig, model: str, suite: Path, questions: Sequence[Question], runs: Sequence[Run]
) -> Json:
    """The whole report."""
    return {
        "server": config.url,
        "model": model,
        "client": describe_host(),
        "suite": {
            "file": suite.name,
            "questions": len(questions),
            "turns": sum(len(question.turns) for question in questions),
            "categories": categories(questions),
        },
        "settings": config.model_dump(mode="json", exclude={"server", "model", "concurrency", "rate"}),
        "runs": [level(load, list(group)) for load, group in groupby(runs, key=lambda run: run.load)],
        "failures": [_failure(run, turn, questions) for run in runs for turn in run.failures],
    }


def level(load: Load, runs: Sequence[Run]) -> Json:
    """Figures of one level of load."""
    by_name = {run.variant: run for run in runs}
    # Whatever ran first, the plain variant stands first.
    variants = {name: figures(by_name[name]) for name in (PLAIN, MEDUSA, AS_SERVED) if name in by_name}
    return {
        "concurrency": load.concurrency,
        "rate": load.rate,
        "variants": variants,
        **(_compared(by_name[PLAIN], by_name[MEDUSA]) if MEDUSA in by_name else {}),
    }


def figures(run: Run) -> Json:
    """Figures of one variant at one level of load."""
    answers = run.answers.values()
    steps = [answer.steps for answer in answers if answer.steps is not None]
    emitted = [answer.step_tokens for answer in answers if answer.step_tokens is not None]
    per_token = [one for answer in answers if (one := answer.time_per_output_token) is not None]
    return {
        "requests": len(answers),
        "failed": len(run.failures),
        "tokens": run.tokens,
        "seconds": round(run.seconds, 4),
        "tokens_per_second": _ratio(run.tokens, run.seconds),
        "ttft": spread([answer.time_to_first_token for answer in answers]),
        "tpot": spread(per_token),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "cached_tokens": sum(answer.cached_tokens for answer in answers),
        "acceleration_rate": _ratio(sum(emitted), sum(steps)),
    }


def spread(seconds: Iterable[float]) -> Json:
    """Mean and percentiles of some times, in milliseconds; null where there is none."""
    ordered = sorted(seconds)
    mean = sum(ordered) / len(ordered) if ordered else None
    found = {"mean": mean, **{f"p{share}": percentile(ordered, share) for share in PERCENTILES}}
    return {name: None if value is None else round(1e3 * value, 3) for name, value in found.items()}


def percentile(ordered: Sequence[float], share: int) -> float | None:
    """The smallest of the ordered values that `share` per cent of them do not exceed.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 95)
    (2, 4)
    """
    return ordered[ceil(share * len(ordered) / 100) - 1] if ordered else None


def table(report: Json) -> Table:
    """The report for people, within 80 columns: a line per level of load and variant."""
    result = Table(
        title=f"{report['model']} at {report['server']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    result.add_column("load")
    result.add_column("guesses")
    for name in ("tokens/s", "TTFT", "TPOT", "per step", "ratio", "same"):
        result.add_column(name, justify="right")
    for one in report["runs"]:
        load = f"{one['concurrency']}" if one["rate"] is None else f"{one['rate']:g}/s"
        for number, (name, found) in enumerate(one["variants"].items()):
            result.add_row("" if number else load, name, *_cells(found), *_comparison(one, name))
        result.add_section()
    failed = len(report["failures"])
    result.caption = "TTFT, TPOT: p50/p95 in ms; per step: tokens; same: texts with and without guesses"
    result.caption += f"\n{failed} requests failed" if failed else ""
    result.caption_justify = "left"
    return result


def _cells(found: Json) -> tuple[str, ...]:
    times = (found[kind] for kind in ("ttft", "tpot"))
    return (
        _shown(found["tokens_per_second"], 1),
        *("/".join(_shown(time[f"p{share}"], 1) for share in PERCENTILES) for time in times),
        _shown(found["acceleration_rate"], 2),
    )


def _comparison(one: Json, name: str) -> tuple[str, ...]:
    if name != MEDUSA:
        return ()
    return _shown(one["ratio"], 2), f"{one['identical']['texts']}/{one['identical']['of']}"


def _compared(plain: Run, medusa: Run) -> Json:
    both = [turn for turn in plain.answers if turn in medusa.answers]
    same = sum(plain.answers[turn].text == medusa.answers[turn].text for turn in both)
    speeds = [_ratio(run.tokens, run.seconds) for run in (medusa, plain)]
    return {
        "ratio": _ratio(*(speed or 0.0 for speed in speeds)),
        "identical": {"texts": same, "of": len(both)},
    }


def _failure(run: Run, turn: Turn, questions: Sequence[Question]) -> Json:
    return {
        "concurrency": run.load.concurrency,
        "rate": run.load.rate,
        "variant": run.variant,
        "question_id": questions[turn[0]].question_id,
        "turn": turn[1],
        "reason": run.failures[turn],
    }


def _ratio(numerator: float, denominator: float) -> float | None:
    return round(numerator / denominator, 4) if denominator else None


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
