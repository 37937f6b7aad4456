"""The scheduler on the real engines, with tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medusa_decoding
from medusa_decoding.decoding import BestFirstPlanner
from medusa_decoding.decoding.tree import BoolArray
from medusa_decoding.generation import GenerationOptions, Medusa
from medusa_decoding.serving.jobs import Job
from medusa_decoding.serving.scheduler import Scheduler
from medusa_decoding.serving.settings import SchedulerSettings
from tests.serving.toys import Answer, Counts, all_answered, alone, run
from tests.tiny import VOCABULARY_SIZE, tiny_heads, tiny_llama

ENGINES = {
    "torch": {"engine": "torch", "dtype": "float64"},
    "cpu": {"engine": "cpu", "weights": "int8", "threads": 1},
    "typical": {"engine": "cpu", "threads": 1, "acceptance": "typical"},
    "plain": {"engine": "torch", "dtype": "float64", "draft": "none"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    heads = tiny_heads(tmp_path_factory.mktemp("heads"), num_heads=3)
    return tiny_llama(tmp_path_factory.mktemp("base")), heads


def load(folders: tuple[Path, Path], name: str) -> Medusa:
    heads = None if name == "plain" else folders[1]
    options: dict[str, Any] = {"tree": 8, **ENGINES[name]}
    return medusa_decoding.load(str(folders[0]), heads=heads, progress=False, **options)


class Digits:
    """A grammar: a digit, then any letters of one kind, then a digit, and so on."""

    def __init__(self) -> None:
        self.text: list[int] = []

    def allowed(self, path: Sequence[int]) -> BoolArray:
        place = len(self.text) + len(path)
        mask = np.zeros(VOCABULARY_SIZE, np.bool_)
        mask[15:25] = place % 3 == 0
        mask[60:90] = place % 3 != 0
        return mask

    def advance(self, tokens: Sequence[int]) -> None:
        self.text.extend(tokens)


def jobs(masks: bool) -> list[Job]:
    shared = list(range(30, 70))
    return [
        Job(
            [*shared, *range(place)] if place % 2 else [place, place + 1],
            GenerationOptions(
                max_tokens=12 + place,
                temperature=0.0 if place % 3 else 0.9,
                seed=place,
                ignore_eos=True,
                presence_penalty=0.2 * (place % 4 == 0),
            ),
            choice=place % 2,
            speculation=("auto", "off", 5)[place % 3],
            mask=Digits() if masks and place % 4 < 2 else None,
            logprobs=1 if place % 5 == 0 else None,
        )
        for place in range(12)
    ]


@pytest.mark.parametrize("name", ["torch", "cpu", "plain"])
def test_each_text_is_the_one_it_would_be_alone(folders: tuple[Path, Path], name: str) -> None:
    medusa, counts = load(folders, name), Counts()
    handles = medusa.engine.open()
    medusa.engine.close(handles)

    async def main() -> list[Answer]:
        # Twice, so that the second time all prompts are known.
        first = await all_answered(scheduler.submit(jobs(False)))
        return [*first, *await all_answered(scheduler.submit(jobs(False)))]

    with Scheduler(medusa, SchedulerSettings(max_sequences=5, prefill_rows=16), counts) as scheduler:
        answers = run(main)
    for one, answer in zip([*jobs(False), *jobs(False)], answers, strict=True):
        assert answer.error is None
        assert (answer.tokens, answer.text, answer.end.reason) == alone(medusa, one)
    reused = [answer.end.reused for answer in answers]
    assert max(reused[:12]) >= 40
    assert all(reused[place] >= 40 for place in range(13, 24, 2))
    assert (counts.waiting, counts.running) == (0, 0)
    if name != "plain":
        assert any(one.accepted for one in counts.progress)


@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_constrained_texts_are_the_same_with_and_without_guesses(
    folders: tuple[Path, Path], name: str
) -> None:
    medusa = load(folders, name)

    async def main() -> list[Answer]:
        return await all_answered(scheduler.submit(jobs(True)))

    with Scheduler(medusa, SchedulerSettings(max_sequences=4)) as scheduler:
        together = run(main)
    for place, answer in enumerate(together):
        [one] = jobs(True)[place : place + 1]
        plain = load_alone(medusa, one)
        assert answer.tokens == plain.tokens
        assert [event for event in answer.events if hasattr(event, "logprob") and event.logprob] != [] or (
            one.logprobs is None
        )
        if one.mask is not None:
            mask = Digits()
            for token in answer.tokens:
                assert mask.allowed([])[token]
                mask.advance([token])


def load_alone(medusa: Medusa, one: Job) -> Answer:
    """The job by itself, without guesses."""
    fields = {name: getattr(one, name) for name in one.__dataclass_fields__}

    async def main() -> list[Answer]:
        return await all_answered(scheduler.submit([Job(**fields | {"speculation": "off"})]))

    with Scheduler(medusa) as scheduler:
        [answer] = run(main)
    assert answer.end.statistics.nodes == answer.end.statistics.steps
    return answer


def test_typical_acceptance_is_served(folders: tuple[Path, Path]) -> None:
    medusa = load(folders, "typical")
    medusa.planner = BestFirstPlanner(12)

    async def main() -> list[Answer]:
        return await all_answered(scheduler.submit(jobs(True)))

    with Scheduler(medusa, SchedulerSettings(max_sequences=4)) as scheduler:
        answers = run(main)
    for one, answer in zip(jobs(True), answers, strict=True):
        assert answer.error is None and len(answer.tokens) == one.options.max_tokens
        if one.mask is not None:
            assert all(
                15 <= token < 25 if place % 3 == 0 else 60 <= token < 90
                for place, token in enumerate(answer.tokens)
            )
