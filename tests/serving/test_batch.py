"""What runs beside what: no thread here, each step is the test's."""

from __future__ import annotations

from medusa_decoding.decoding import NoDrafter
from medusa_decoding.serving.batch import Batch
from medusa_decoding.serving.jobs import Emitted, Finished, Job
from medusa_decoding.serving.settings import SchedulerSettings
from medusa_decoding.serving.text import Text
from tests.decoding.toy import ToyEngine
from tests.serving.toys import Counts, alone, job, toy_medusa

LONG = [token % 10 for token in range(150)]


class Bench:
    """A batch, and what came of each of its texts."""

    def __init__(self, **limits: object) -> None:
        self.medusa = toy_medusa(context=400, drafter=NoDrafter())
        self.medusa.lookup = None
        self.counts = Counts()
        self.batch = Batch(self.medusa, SchedulerSettings(**limits), self.counts)  # type: ignore[arg-type]
        self.tokens: dict[Text, list[int]] = {}
        self.waiting: list[Text] = []

    @property
    def engine(self) -> ToyEngine:
        assert isinstance(self.medusa.engine, ToyEngine)
        return self.medusa.engine

    def take(self, one: Job) -> Text:
        text = Text(one)
        self.counts.queued()
        self.waiting.append(text)
        return text

    def step(self) -> None:
        for text in list(self.waiting):
            admission = self.batch.admit(text)
            if admission == "full":
                break
            if admission == "begun":
                self.waiting.remove(text)
        for text, events in self.batch.step():
            found = self.tokens.setdefault(text, [])
            found += [event.token for event in events if isinstance(event, Emitted)]
            assert text not in self.batch.running or not any(isinstance(one, Finished) for one in events)

    def finish(self) -> None:
        while self.waiting or self.batch.running:
            self.step()

    def check(self, *texts: Text) -> None:
        for text in texts:
            assert self.tokens[text] == alone(toy_medusa(context=400), text.job)[0]


def test_a_short_prompt_has_its_first_token_while_a_long_one_is_read() -> None:
    bench = Bench(prefill_rows=16)
    writing = bench.take(job([1], max_tokens=40))
    bench.step()
    long = bench.take(job(LONG))
    bench.step()
    short = bench.take(job([5, 3, 1, 2, 4, 6]))
    bench.step()
    assert len(bench.tokens[short]) == 1
    assert bench.tokens.get(long, []) == []
    assert max(bench.engine.sizes) <= 16 + 2
    bench.finish()
    bench.check(writing, long, short)


def test_choices_of_one_prompt_read_it_once() -> None:
    bench = Bench(prefill_rows=64)
    texts = [bench.take(job(LONG, fields={"choice": choice})) for choice in range(4)]
    bench.finish()
    bench.check(*texts)
    read = sum(text.sequence.statistics.prompt_tokens for text in texts)
    assert read == len(LONG) + 3
    assert [text.reused for text in texts] == [0, *[len(LONG) - 1] * 3]


def test_a_short_prompt_waits_for_the_common_part_only() -> None:
    bench = Bench(prefill_rows=32)
    long = bench.take(job(LONG))
    short = bench.take(job([*LONG[:20], 9, 9]))
    other = bench.take(job([7, 7]))
    bench.step()
    assert bench.batch.running == [long, other]
    # Beside one that ends, the long prompt has a quarter of the budget; then all of it.
    assert long.sequence.committed == 8
    bench.step()
    bench.step()
    assert short in bench.batch.running and short.reused == 20
    assert len(bench.tokens[short]) == 1 and long not in bench.tokens
    bench.finish()
    bench.check(long, short, other)


def test_a_conversation_is_read_once() -> None:
    bench = Bench()
    first = bench.take(job(LONG[:30], max_tokens=20))
    bench.finish()
    history = [*LONG[:30], *bench.tokens[first]]
    second = bench.take(job([*history, 3, 4, 5]))
    bench.finish()
    bench.check(first, second)
    # All but the last token of the answer, which was never run.
    assert second.reused == len(history) - 1
    assert len(bench.batch.kept.lengths) == 1
    assert bench.counts.reused == second.reused


def test_a_cancelled_prompt_is_kept_as_far_as_it_was_read() -> None:
    bench = Bench(prefill_rows=40)
    first = bench.take(job(LONG))
    bench.step()
    bench.batch.end(first, "cancelled")
    second = bench.take(job(LONG))
    bench.finish()
    bench.check(second)
    assert second.reused == 40


def test_texts_wait_for_memory_and_what_is_kept_makes_way() -> None:
    bench = Bench(kv_memory=200e-9, prefix_tokens=150)
    texts = [bench.take(job([place, *LONG[: 50 + place]], max_tokens=30)) for place in range(6)]
    seen = 0
    while bench.waiting or bench.batch.running:
        bench.step()
        held = sum(len(text) for text in bench.engine.texts.values())
        reserved = sum(text.reach for text in bench.batch.running)
        assert held <= reserved + sum(bench.batch.kept.lengths) <= 200
        seen = max(seen, len(bench.batch.running))
    assert seen == 2
    bench.check(*texts)


def test_a_large_text_is_not_overtaken_for_ever() -> None:
    bench = Bench(kv_memory=200e-9, prefix_tokens=0)
    small = [bench.take(job([1, 2], max_tokens=40)) for _ in range(2)]
    large = bench.take(job(LONG, max_tokens=40))
    late = bench.take(job([3], max_tokens=5))
    bench.step()
    assert (bench.batch.running, bench.waiting) == (small, [large, late])
    bench.finish()
    bench.check(*small, large, late)
    assert large.started <= late.started


def test_an_engine_that_cannot_fork_reads_everything() -> None:
    class Forkless(ToyEngine):
        @property
        def fork(self) -> None:  # type: ignore[override]
            raise AttributeError

    medusa = toy_medusa(Forkless, drafter=NoDrafter())
    batch = Batch(medusa, SchedulerSettings(), Counts())
    assert batch.kept.most == 0
    texts = [Text(job(LONG[:50])) for _ in range(2)]
    batch._observer.queued()
    batch._observer.queued()
    assert [batch.admit(text) for text in texts] == ["begun", "begun"]
    while batch.running:
        batch.step()
    assert [text.reused for text in texts] == [0, 0]
    assert medusa.engine.texts == {}  # type: ignore[attr-defined]


def test_an_engine_that_keeps_rows_as_they_are_run_is_not_asked_twice() -> None:
    class Forward(ToyEngine):
        verifies_trees = False

        def forward(self, rows):  # type: ignore[no-untyped-def]
            raise RuntimeError

    medusa = toy_medusa(Forward, drafter=NoDrafter())
    counts = Counts()
    batch = Batch(medusa, SchedulerSettings(), counts)
    for _ in range(2):
        counts.queued()
        batch.admit(Text(job([1, 2])))
    assert len(batch.step()) == 2
    assert batch.running == [] and counts.endings == ["failed", "failed"]
