"""This project's own sides: as it was loaded, without guesses, with prompt lookup alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version

from medusa_decoding.bench.peers.quality import summed
from medusa_decoding.bench.peers.result import SUBJECT
from medusa_decoding.bench.peers.side import About, PeerMissing, Prompt, Written
from medusa_decoding.bench.reading import logits_after
from medusa_decoding.decoding import AdaptivePlanner, LookupDrafter, NoDrafter, Planner, StaticPlanner
from medusa_decoding.generation import GenerationOptions, Medusa
from medusa_decoding.generation.rules import unmeasured_planner


class OwnSide:
    """A loaded model; with its guesses, or without."""

    def __init__(self, medusa: Medusa, name: str, weights: str, *, speculative: bool = True) -> None:
        self._medusa, self._speculative = medusa, speculative
        drafting = medusa.drafting if speculative else "no guesses"
        self.about = About(
            name=name,
            peer=name,
            description=f"{getattr(medusa.engine, 'description', type(medusa.engine).__name__)}, {drafting}",
            weights=weights,
            weights_key="own",
            versions={"medusa-decoding": version("medusa-decoding")},
        )

    def write(self, prompt: Prompt, tokens: int) -> Written:
        """As any user's program would see it, the text included."""
        options = GenerationOptions.of(None, {"max_tokens": tokens, "ignore_eos": True})
        started = time.perf_counter()
        stream = self._medusa.stream(prompt.ids, options, speculative=self._speculative)
        next(stream)
        first = time.perf_counter()
        for _ in stream:
            pass
        ended = time.perf_counter()
        result = stream.result
        return Written(
            result.statistics.tokens,
            ended - first,
            first - started,
            result.tokens,
            result.statistics.steps,
        )

    def log_likelihood(self, tokens: Sequence[int]) -> float:
        """By the engine; guesses change nothing there."""
        return summed(logits_after(self._medusa.engine, tokens[:-1], 0), tokens[1:])

    def close(self) -> None:
        """The model is not this side's to free."""


def subject(medusa: Medusa, weights: str) -> OwnSide:
    """What is measured: the model as it was loaded."""
    return OwnSide(medusa, SUBJECT, weights)


def autoregressive(medusa: Medusa, weights: str) -> OwnSide:
    """The same engine without guesses."""
    return OwnSide(medusa, "autoregressive", weights, speculative=False)


def lookup(medusa: Medusa, weights: str) -> OwnSide:
    """The same engine with prompt lookup alone; raises PeerMissing where it verifies no guesses."""
    if not getattr(medusa.engine, "verifies_trees", True):
        raise PeerMissing(f"{medusa.name} cannot verify guesses")
    alone = replace(
        medusa,
        heads=None,
        heads_name=None,
        drafter=NoDrafter(),
        lookup=LookupDrafter(),
        planner=_planner_like(medusa.planner),
    )
    return OwnSide(alone, "lookup", weights)


def _planner_like(planner: Planner | None) -> Planner:
    """One of its own: what a planner learns of one side's steps is not the other's."""
    if isinstance(planner, AdaptivePlanner):
        return AdaptivePlanner(planner.cost, planner.limit)
    # A static tree has places for heads only.
    if planner is None or isinstance(planner, StaticPlanner):
        return unmeasured_planner(False)
    return deepcopy(planner)
