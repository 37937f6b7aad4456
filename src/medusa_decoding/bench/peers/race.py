"""Prompt by prompt on all sides, each prompt beginning with another side.

So what the machine does meanwhile, such as slowing down when it is warm, happens to all of them. At the end
come the first prompts once more: what they take then tells how far the machine drifted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medusa_decoding.bench.peers.result import PromptRun
from medusa_decoding.bench.peers.side import NoAnswer, PeerFailed, Prompt, Side, Written

Advance = Callable[[int, int], None]
REPEATS = 3
"""Prompts that are run once more at the end."""


@dataclass(frozen=True)
class Task:
    """A prompt, and the base model's own answer, whose length every side writes: at least 2 tokens."""

    prompt: Prompt
    answer: list[int]


@dataclass
class Runner:
    """A side in the race. limit: how many prompts it gets. runs: what it wrote. repeats: what it wrote once
    more at the end. failure: why it left.
    """

    side: Side
    limit: int
    runs: list[PromptRun] = field(default_factory=list)
    repeats: list[PromptRun] = field(default_factory=list)
    tokens: int = 0
    steps: int | None = 0
    failure: str | None = None

    def run(self, place: int, task: Task, *, again: bool = False) -> int:
        """One prompt; returns how many tokens were written, 0 where none could be counted."""
        try:
            written = self.side.write(task.prompt, len(task.answer))
        except NoAnswer:
            return 0
        except PeerFailed as error:
            self.failure = f"prompt {place + 1}: {error}"
            return 0
        if written.count < 1 or written.seconds <= 0:
            # All came in one step.
            return 0
        run = PromptRun(
            prompt=place,
            tokens=written.count,
            seconds=written.seconds,
            prefill_seconds=written.prefill_seconds,
            identical=None if written.tokens is None else written.tokens == task.answer,
        )
        if again:
            self.repeats.append(run)
        else:
            self._count(run, written)
        return written.count

    def _count(self, run: PromptRun, written: Written) -> None:
        self.tokens += written.count
        self.steps = None if self.steps is None or written.steps is None else self.steps + written.steps
        self.runs.append(run)


def rotated(runners: Sequence[Runner], number: int) -> list[Runner]:
    """The same, beginning with another for each number."""
    first = number % len(runners)
    return [*runners[first:], *runners[:first]]


def race(runners: Sequence[Runner], tasks: Sequence[Task], advance: Advance = lambda *_: None) -> None:
    """Run all tasks on all sides; `advance` is called with the runs and tokens that were settled."""
    rounds = [(place, task, False) for place, task in enumerate(tasks)]
    rounds += [(place, task, True) for place, task in enumerate(tasks[:REPEATS])]
    for place, task, again in rounds:
        running = [one for one in runners if place < one.limit]
        for runner in rotated(running, place):
            if runner.failure is None:
                advance(1, runner.run(place, task, again=again))
            else:
                advance(1, 0)


def runs_in(runners: Sequence[Runner], tasks: Sequence[Task]) -> int:
    """How many runs a race has."""
    return sum(min(one.limit, len(tasks)) + min(one.limit, len(tasks), REPEATS) for one in runners)
