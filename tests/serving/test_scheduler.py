from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import NoDrafter
from medusa_decoding.decoding.tree import BoolArray
from medusa_decoding.errors import UserError
from medusa_decoding.serving.jobs import Draining, Emitted, Failed, Job, QueueFull, Verified
from medusa_decoding.serving.scheduler import Scheduler
from medusa_decoding.serving.settings import SchedulerSettings
from medusa_decoding.serving.tickets import EventTicket
from tests.serving.toys import (
    END,
    POISON,
    VOCABULARY,
    Answer,
    Counts,
    Gated,
    Poisoned,
    all_answered,
    alone,
    answered,
    job,
    run,
    toy_medusa,
)

jobs = st.builds(
    lambda shared, prompt, speculation, choice, **options: job(
        [*range(POISON), *range(POISON), *prompt] if shared else prompt,
        fields={"speculation": speculation, "choice": choice},
        **options,
    ),
    shared=st.booleans(),
    prompt=st.lists(st.integers(0, END), min_size=1, max_size=40),
    speculation=st.sampled_from(["auto", "off", 1, 4]),
    choice=st.integers(0, 2),
    seed=st.integers(0, 5),
    temperature=st.sampled_from([0.0, 0.9]),
    max_tokens=st.integers(1, 25),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    stop=st.sampled_from([(), ("a",), ("bc", "ca")]),
    ignore_eos=st.booleans(),
)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(jobs, min_size=1, max_size=12),
    st.builds(
        SchedulerSettings,
        max_sequences=st.integers(1, 8),
        kv_memory=st.sampled_from([None, 130e-9, 400e-9]),
        prefix_tokens=st.sampled_from([0, 60, 1000]),
        prefill_rows=st.integers(1, 40),
    ),
)
def test_each_text_is_the_one_it_would_be_alone(wanted: list[Job], limits: SchedulerSettings) -> None:
    medusa, counts = toy_medusa(), Counts()

    async def main() -> list[Answer]:
        return await all_answered(scheduler.submit(wanted))

    with Scheduler(medusa, limits, counts) as scheduler:
        answers = run(main)
    for one, answer in zip(wanted, answers, strict=True):
        assert answer.error is None
        assert (answer.tokens, answer.text, answer.end.reason) == alone(toy_medusa(), one)
        statistics = answer.end.statistics
        assert statistics.prompt_tokens + answer.end.reused == len(one.prompt)
        assert statistics.tokens == len(answer.tokens) - 1
    assert medusa.engine.texts == {}  # type: ignore[attr-defined]
    assert (counts.waiting, counts.running) == (0, 0)
    assert counts.first_tokens == len(counts.endings) == len(wanted)
    assert sum(one.tokens for one in counts.progress) == sum(len(one.tokens) - 1 for one in answers)
    assert sum(counts.rows) == sum(medusa.engine.sizes)  # type: ignore[attr-defined]
    assert counts.reused == sum(answer.end.reused for answer in answers)


def test_trees_and_log_probabilities_come_if_asked_for() -> None:
    asked = job([1, 2, 3], fields={"trees": True, "logprobs": 2}, max_tokens=30)
    quiet = job([1, 2, 3], max_tokens=30)

    async def main() -> list[Answer]:
        return await all_answered(scheduler.submit([asked, quiet]))

    with Scheduler(toy_medusa()) as scheduler:
        answer, other = run(main)
    assert answer.tokens == other.tokens
    assert not any(isinstance(event, Verified) for event in other.events)
    assert all(event.logprob is None for event in other.events if isinstance(event, Emitted))
    tree: Verified | None = None
    emitted: list[Emitted] = []
    for event in [*answer.events[1:-1], Verified((), (), (), (), ())]:
        if isinstance(event, Emitted):
            assert event.logprob is not None and len(event.logprob.top) == 2
            emitted.append(event)
        elif isinstance(event, Verified):
            if tree is not None:
                # The guesses of the path, and the base model's own token.
                guessed = [tree.tokens[node] for node in tree.path[1:]]
                assert [one.token for one in emitted[:-1]] == guessed
                assert [one.source for one in emitted] == [*(tree.sources[node] for node in tree.path[1:]), 0]
                assert len(tree.parents) == len(tree.probabilities) == len(tree.tokens)
            tree, emitted = event, []
    assert answer.end.statistics.steps == sum(isinstance(event, Verified) for event in answer.events)


def gated(limits: SchedulerSettings, counts: Counts) -> tuple[Scheduler, Callable[[], None]]:
    """A scheduler whose engine waits before each pass, and what lets one pass go."""
    medusa = toy_medusa(Gated)
    gate = threading.Semaphore(0)
    medusa.engine.gate = gate  # type: ignore[attr-defined]
    return Scheduler(medusa, limits, counts), gate.release


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_cancelled_text_is_gone_after_the_step_at_hand() -> None:
    counts = Counts()
    scheduler, go = gated(SchedulerSettings(max_sequences=2), counts)

    async def main() -> None:
        first, second, third = scheduler.submit([job([1, 2], max_tokens=50) for _ in range(3)])
        answers = asyncio.gather(answered(first), answered(third))
        other = asyncio.ensure_future(answered(second))
        await until(lambda: counts.running == 2)
        go()
        await until(lambda: len(counts.rows) == 1)
        second.cancel()
        second.cancel()
        stopped = await other
        assert stopped.error is None and all(isinstance(event, Emitted) for event in stopped.events)
        go()  # The pass that had begun meanwhile.
        await until(lambda: counts.endings == ["cancelled"])
        assert len(counts.rows) <= 2
        await until(lambda: counts.running == 2)  # The third has its place.
        for _ in range(200):
            go()
        for one in await answers:
            assert len(one.tokens) == 50

    with scheduler:
        run(main)
    assert sorted(counts.endings) == ["cancelled", "length", "length"]


def test_a_waiting_text_can_be_cancelled() -> None:
    counts = Counts()
    scheduler, go = gated(SchedulerSettings(max_sequences=1), counts)

    async def main() -> None:
        first, second = scheduler.submit([job([1, 2], max_tokens=3) for _ in range(2)])
        await until(lambda: counts.running == 1)
        second.cancel()
        go()
        await until(lambda: counts.waiting == 0)
        assert counts.endings == ["cancelled"]
        for _ in range(5):
            go()
        assert len((await answered(first)).tokens) == 3
        assert (await answered(second)).events == []

    with scheduler:
        run(main)


def test_a_full_queue_takes_all_of_a_request_or_none() -> None:
    counts = Counts()
    scheduler, go = gated(SchedulerSettings(max_sequences=2, max_queue=3), counts)
    assert scheduler.capacity == 5

    async def main() -> None:
        taken = scheduler.submit([job([1, 2]) for _ in range(4)])
        with pytest.raises(QueueFull) as full:
            scheduler.submit([job([1, 2]) for _ in range(2)])
        assert 1 <= full.value.retry_after <= 60
        taken += scheduler.submit([job([1, 2])])
        with pytest.raises(QueueFull):
            scheduler.submit([job([1, 2])])
        for _ in range(100):
            go()
        assert all(answer.error is None for answer in await all_answered(taken))
        [again] = scheduler.submit([job([1, 2])])
        assert len((await answered(again)).tokens) == 10

    with scheduler:
        run(main)
    assert len(counts.endings) == 6


def test_draining_ends_what_was_taken_and_takes_no_more() -> None:
    counts = Counts()
    scheduler, go = gated(SchedulerSettings(max_sequences=1), counts)

    async def main() -> None:
        tickets = scheduler.submit([job([1, 2]), job([3])])
        drained = asyncio.ensure_future(scheduler.drain())
        await until(lambda: counts.running == 1)
        with pytest.raises(Draining):
            scheduler.submit([job([4])])
        assert not drained.done()
        for _ in range(100):
            go()
        await drained
        assert counts.endings == ["length", "length"]
        # All events are there already.
        assert [len((await answered(ticket)).tokens) for ticket in tickets] == [10, 10]
        await scheduler.drain()

    with scheduler:
        run(main)


def test_closing_gives_up_what_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    medusa, counts = toy_medusa(), Counts()
    cancel = EventTicket.cancel
    # The scheduler's thread has time to end before all are cancelled, if it would.
    monkeypatch.setattr(EventTicket, "cancel", lambda ticket: (time.sleep(0.02), cancel(ticket)))

    async def main() -> None:
        scheduler = Scheduler(medusa, SchedulerSettings(max_sequences=1), counts)
        tickets = scheduler.submit([job([1, 2], max_tokens=150) for _ in range(3)])
        answers = asyncio.ensure_future(all_answered(tickets))
        await until(lambda: counts.running == 1)
        await asyncio.to_thread(scheduler.close)
        scheduler.close()
        assert len(await answers) == 3
        with pytest.raises(Draining):
            scheduler.submit([job([1])])

    run(main)
    assert (counts.waiting, counts.running, len(counts.endings)) == (0, 0, 3)
    assert medusa.engine.texts == {}  # type: ignore[attr-defined]


def test_answers_that_are_not_streamed_come_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[EventTicket] = []
    bring = EventTicket.bring
    monkeypatch.setattr(EventTicket, "bring", lambda one, events: (brought.append(one), bring(one, events)))

    async def main() -> None:
        with Scheduler(toy_medusa()) as scheduler:
            tickets = scheduler.submit([job([1, 2], fields={"streamed": whole}) for whole in (True, False)])
            streamed, whole = await all_answered(tickets)
        assert streamed.tokens == whole.tokens and streamed.text == whole.text
        assert brought.count(tickets[0]) > brought.count(tickets[1]) == 1  # type: ignore[arg-type]

    run(main)


class Breaks:
    """A mask that allows all and breaks after some tokens."""

    def __init__(self, after: int) -> None:
        self.left = after

    def allowed(self, path: Sequence[int]) -> BoolArray:
        if self.left <= 0:
            raise RuntimeError("secret text")
        return np.ones(VOCABULARY, np.bool_)

    def advance(self, tokens: Sequence[int]) -> None:
        self.left -= len(tokens)


GOOD = [
    job([1, 2], max_tokens=20, logit_bias={POISON: -100}),
    job([3], max_tokens=5, logit_bias={POISON: -100}),
]
BAD: dict[str, tuple[Job, dict[str, Any], int]] = {
    "mask at once": (job([1, 2], fields={"mask": Breaks(0)}, logit_bias={POISON: -100}), {}, 0),
    "mask": (job([1, 2], fields={"mask": Breaks(4)}, logit_bias={POISON: -100}), {}, 1),
    "letters": (job([1, 2], logit_bias={POISON: 100}), {"broken": [POISON]}, 0),
    "engine": (job([4, POISON], max_tokens=5), {"kind": Poisoned, "drafter": NoDrafter()}, 0),
    "engine later": (
        job([4], max_tokens=5, logit_bias={POISON: 100}),
        {"kind": Poisoned, "drafter": NoDrafter()},
        1,
    ),
    "prompt": (job([1] * 200, max_tokens=5), {}, 0),
    "no prompt": (job([]), {}, 0),
    "token": (job([VOCABULARY]), {}, 0),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_failing_text_takes_no_other_along(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    bad, options, least = BAD[fault]
    counts = Counts()
    medusa = toy_medusa(**options)

    async def main() -> list[Answer]:
        return await all_answered(scheduler.submit([GOOD[0], bad, GOOD[1]]))

    with Scheduler(medusa, None, counts) as scheduler:
        first, failed, second = run(main)
    assert isinstance(failed.error, Failed)
    assert len(failed.tokens) >= least
    for one, answer in zip(GOOD, (first, second), strict=True):
        assert answer.error is None
        assert answer.tokens == alone(toy_medusa(), one)[0]
    assert medusa.engine.texts == {}  # type: ignore[attr-defined]
    assert sorted(counts.endings) == ["failed", "length", "length"]
    assert (counts.waiting, counts.running) == (0, 0)
    assert caplog.records and "secret" not in caplog.text and "secret" not in str(failed.error)


def test_memory_that_holds_no_text_is_an_error() -> None:
    with pytest.raises(UserError, match="give them more"):
        Scheduler(toy_medusa(), SchedulerSettings(kv_memory=1e-9))


def test_the_context_is_what_memory_and_settings_leave() -> None:
    for limits, expected in (({}, 200), ({"context": 60}, 60), ({"kv_memory": 50e-9, "context": 60}, 50)):
        with Scheduler(toy_medusa(), SchedulerSettings(**limits)) as scheduler:
            assert scheduler.context_length == expected

            async def main(scheduler: Scheduler = scheduler) -> Answer:
                return await answered(scheduler.submit([job([1] * 40, max_tokens=500)])[0])

            answer = run(main)
            assert len(answer.tokens) == expected - 40
            assert answer.end.reason == "length"
