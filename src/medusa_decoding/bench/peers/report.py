"""The result of a race: figures of each side, overall and by category."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medusa_decoding.bench.peers.against import Measured
from medusa_decoding.bench.peers.estimate import drift, estimate, ratios
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


@dataclass(frozen=True)
class Speeds:
    """Tokens per second of a side's prompts. first: of those that count. again: of those that were run once
    more. whole: of all.
    """

    first: Rates
    again: Rates
    whole: Rates

    @classmethod
    def of(cls, runner: Runner) -> Speeds:
        """Of all prompts."""
        return cls(rates(runner.runs), rates(runner.repeats), rates(runner.runs))

    def only(self, prompts: Collection[int]) -> Speeds:
        """Of some prompts; what the machine did is told by all."""
        return replace(self, first={prompt: self.first[prompt] for prompt in prompts})

    @property
    def drift(self) -> float:
        """How far the machine moved under this side."""
        return drift(self.whole, self.again)


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
    ours = None if about.name == SUBJECT else Speeds.of(subject)
    theirs = Speeds.of(runner)
    lengths = [prompt.prompt_tokens for prompt in measured.prompts]
    categories = _categories(measured)
    return SideResult(
        name=about.name,
        peer=about.peer,
        description=about.description,
        weights=about.weights,
        versions=about.versions,
        perplexity=measured.perplexities.get(about.weights_key),
        tokens_per_second=estimate(list(theirs.first.values()), theirs.drift),
        prefill_tokens_per_second=estimate([lengths[run.prompt] / run.prefill_seconds for run in runs]),
        ratio=_ratio(ours, theirs),
        acceleration_rate=runner.tokens / runner.steps if runner.steps else None,
        categories={
            name: _figures(ours, theirs.only({run.prompt for run in runs if categories[run.prompt] == name}))
            for name in dict.fromkeys(categories[run.prompt] for run in runs)
        },
        runs=runs,
        repeats=runner.repeats,
        failure=runner.failure,
    )


def _figures(ours: Speeds | None, theirs: Speeds) -> CategoryFigures:
    speed = estimate(list(theirs.first.values()), theirs.drift)
    return CategoryFigures(tokens_per_second=speed, ratio=_ratio(ours, theirs))


def _ratio(ours: Speeds | None, theirs: Speeds) -> Estimate | None:
    found = {} if ours is None else ratios(ours.first, theirs.first)
    if ours is None or not found:
        return None
    moved = drift(ratios(ours.whole, theirs.whole), ratios(ours.again, theirs.again))
    return estimate(list(found.values()), moved)


def rates(runs: Sequence[PromptRun]) -> Rates:
    """Tokens per second of each prompt."""
    return {run.prompt: run.tokens_per_second for run in runs}


def _categories(measured: Measured) -> list[str]:
    return [prompt.category for prompt in measured.prompts]


def _skipped(runner: Runner) -> SkippedPeer:
    about = runner.side.about
    name = about.peer if about.name == about.peer else f"{about.peer} ({about.name})"
    return SkippedPeer(peer=name, reason=runner.failure or "it wrote nothing that could be counted")
