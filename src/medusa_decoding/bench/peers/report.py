"""The result of a race: figures of each side, overall and by category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medusa_decoding.bench.peers.against import Measured
from medusa_decoding.bench.peers.estimate import estimate, ratios
from medusa_decoding.bench.peers.race import Runner
from medusa_decoding.bench.peers.result import (
    SUBJECT,
    AgainstResult,
    CategoryFigures,
    Estimate,
    PromptRun,
    SideResult,
    SkippedPeer,
)
from medusa_decoding.bench.report import describe
from medusa_decoding.generation import Medusa

Rates = dict[int, float]


def build_result(
    medusa: Medusa, measured: Measured, *, command: str, suite: Path, settings: dict[str, Any], threads: int
) -> AgainstResult:
    """The whole result. Sides that wrote nothing are among the skipped."""
    described = describe(medusa)
    wrote = [one for one in measured.runners if one.runs]
    assert wrote[0].side.about.name == SUBJECT
    return AgainstResult(
        command=command,
        machine=described["machine"],
        model=medusa.name,
        fingerprint=medusa.fingerprint,
        threads=threads,
        engine=described["engine"],
        drafting=medusa.drafting,
        suite={"file": suite.name, "categories": list(dict.fromkeys(_categories(measured)))},
        settings=settings,
        text=measured.text,
        prompts=measured.prompts,
        sides=[_side(one, wrote[0], measured) for one in wrote],
        skipped=[*measured.opened.skipped, *(_skipped(one) for one in measured.runners if not one.runs)],
        skipped_prompts=measured.skipped_prompts,
    )


def _side(runner: Runner, subject: Runner, measured: Measured) -> SideResult:
    about, runs = runner.side.about, runner.runs
    ours = None if about.name == SUBJECT else rates(subject.runs)
    lengths = [prompt.prompt_tokens for prompt in measured.prompts]
    categories = _categories(measured)
    return SideResult(
        name=about.name,
        peer=about.peer,
        description=about.description,
        weights=about.weights,
        versions=about.versions,
        perplexity=measured.perplexities.get(about.weights_key),
        tokens_per_second=estimate(list(rates(runs).values())),
        prefill_tokens_per_second=estimate([lengths[run.prompt] / run.prefill_seconds for run in runs]),
        ratio=_ratio(ours, rates(runs)),
        acceleration_rate=runner.tokens / runner.steps if runner.steps else None,
        categories={
            name: _figures(ours, [run for run in runs if categories[run.prompt] == name])
            for name in dict.fromkeys(categories[run.prompt] for run in runs)
        },
        runs=runs,
        failure=runner.failure,
    )


def _figures(ours: Rates | None, runs: Sequence[PromptRun]) -> CategoryFigures:
    theirs = rates(runs)
    return CategoryFigures(tokens_per_second=estimate(list(theirs.values())), ratio=_ratio(ours, theirs))


def _ratio(ours: Mapping[int, float] | None, theirs: Mapping[int, float]) -> Estimate | None:
    found = [] if ours is None else ratios(ours, theirs)
    return estimate(found) if found else None


def rates(runs: Sequence[PromptRun]) -> Rates:
    """Tokens per second of each prompt."""
    return {run.prompt: run.tokens_per_second for run in runs}


def _categories(measured: Measured) -> list[str]:
    return [prompt.category for prompt in measured.prompts]


def _skipped(runner: Runner) -> SkippedPeer:
    about = runner.side.about
    name = about.peer if about.name == about.peer else f"{about.peer} ({about.name})"
    return SkippedPeer(peer=name, reason=runner.failure or "it wrote nothing that could be counted")
