from __future__ import annotations

import pytest

from medusa_decoding.decoding import StepCost
from medusa_decoding.errors import UserError
from medusa_decoding.tuning import FULL, QUICK, Effort, measure
from medusa_decoding.tuning.measure import COARSE, fitting
from tests.tuning.clocked import SMALL, Clock, ClockedDrafter, ClockedEngine

SHORT = Effort((1, 2, 3, 8), (256, 2048), rounds=5, seconds=60.0)


def true(rows: int, context: int, cost: StepCost = SMALL) -> float:
    """Of a pass and asking for its tokens, as the engine takes it."""
    return pytest.approx(cost.step(rows, context) + 0.01 * rows, abs=1e-4)


@pytest.mark.parametrize("every", [1000, 7, 11])
def test_the_medians_are_the_engines_own_times(clock: Clock, every: int) -> None:
    engine = ClockedEngine(clock, is_slow=lambda number: number % every == 0)
    found = measure(engine, ClockedDrafter(engine), SHORT).measured
    assert found.rows == SHORT.rows
    assert list(found.contexts) == [256, 2048]
    for context, times in found.contexts.items():
        assert list(times) == [true(rows, context) for rows in SHORT.rows]
    assert [found.draft(count) for count in (1, 2, 4)] == pytest.approx([0.5, 0.6, 0.8])


def test_the_engine_is_left_as_it_was(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    measure(engine, None, SHORT)
    assert engine.lengths == {}
    assert engine.pending is None


def test_without_heads_no_drafting_is_measured(clock: Clock) -> None:
    found = measure(ClockedEngine(clock), None, SHORT)
    assert (found.drafts, found.measured.draft(1)) == (False, 0.0)
    assert found.report()["draft_milliseconds"] is None


def test_all_of_it_is_measured_where_there_is_room(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    found = measure(engine, ClockedDrafter(engine), FULL)
    assert found.measured.rows == tuple(range(1, 33))
    assert list(found.measured.contexts) == [256, 2048, 8192]
    assert found.quick is False
    assert clock.now - 100 < 60
    assert engine.trees.count(20) == 3 * FULL.rounds


def test_a_quick_look_takes_less_than_three_seconds(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    found = measure(engine, ClockedDrafter(engine), QUICK)
    assert found.quick is True
    assert clock.now - 100 < 3
    assert found.measured.step(6, 256) == true(6, 256)
    assert engine.trees.count(6) >= 3


def slower(factor: float) -> StepCost:
    times = {context: tuple(factor * time for time in row) for context, row in SMALL.contexts.items()}
    return StepCost(SMALL.rows, times, {1: 0.5 * factor})


@pytest.mark.parametrize("effort", [QUICK, FULL])
@pytest.mark.parametrize("factor", [12, 200, 5000])
def test_slow_engines_are_measured_less(clock: Clock, effort: Effort, factor: float) -> None:
    engine = ClockedEngine(clock, slower(factor))
    found = measure(engine, ClockedDrafter(engine), effort).measured
    assert found.rows == COARSE
    assert found.step(8, 256) == true(8, 256, engine.cost)
    least = engine.cost.step(256, 0) + sum(engine.cost.step(rows, 256) + 1 for rows in (*COARSE, 1, 1, 1, 1))
    assert clock.now - 100 < max(effort.seconds * 1.5, 1.5 * least / 1000)


@pytest.mark.parametrize(
    ("length", "contexts"),
    [
        (8197, [256, 2048, 8192]),
        (8196, [256, 2048, 8191]),
        (2565, [256, 2048, 2560]),
        (2564, [256, 2048]),
        (1024, [256, 1019]),
        (261, [256]),
        (260, [255]),
        (64, [59]),
        (2, [1]),
    ],
)
def test_contexts_that_leave_no_room_for_a_tree_are_left_out(length: int, contexts: list[int]) -> None:
    assert fitting(FULL.contexts, length) == contexts


def test_a_small_context_is_measured_to_its_end(clock: Clock) -> None:
    engine = ClockedEngine(clock, context_length=64)
    assert list(measure(engine, None, SHORT).measured.contexts) == [59]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")]
)
@pytest.mark.parametrize("memory", [600, 2060])
def test_what_does_not_fit_the_memory_is_left_out(clock: Clock, error: Exception, memory: int) -> None:
    engine = ClockedEngine(clock, memory=memory, error=error)
    effort = Effort((1, 16), (256, 2048), rounds=3, seconds=60.0)
    assert list(measure(engine, None, effort).measured.contexts) == [256]
    assert engine.lengths == {}


def test_too_little_memory_for_anything_is_said(clock: Clock) -> None:
    engine = ClockedEngine(clock, memory=200)
    with pytest.raises(UserError, match="too little memory"):
        measure(engine, None, SHORT)
    assert engine.lengths == {}


def test_other_faults_are_not_hidden(clock: Clock) -> None:
    engine = ClockedEngine(clock, memory=1000, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        measure(engine, None, SHORT)
    assert engine.lengths == {}


def test_the_bandwidth_is_the_median_of_the_same_run(clock: Clock) -> None:
    found = measure(ClockedEngine(clock, bandwidths=[20.0, 24.0, 21.0, 3.0, 22.0, 99.0, 21.0]), None, SHORT)
    assert 20 <= (found.read_bandwidth_gb_s or 0) <= 24
    assert found.weight_bytes == 100_000_000
    alone = measure(ClockedEngine(clock, bandwidths=[25.0]), None, SHORT)
    assert alone.bandwidth_bound_ms == pytest.approx(4.0)


def test_progress_rises(clock: Clock) -> None:
    told: list[tuple[float, str]] = []
    measure(ClockedEngine(clock), None, SHORT, lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, pytest.approx(0.9))
    assert {what for _, what in told} == {"256 tokens of context", "2048 tokens of context"}


@pytest.mark.parametrize(("share", "quiet"), [(0.0, True), (0.1, True), (0.5, False), (1.5, False)])
def test_a_busy_machine_is_noticed(clock: Clock, share: float, quiet: bool) -> None:
    clock.waiting = share
    found = measure(ClockedEngine(clock), None, SHORT)
    assert found.waiting == pytest.approx(share, abs=0.001)
    assert found.is_quiet is quiet
