from __future__ import annotations

from collections.abc import Sequence

from medusa_decoding.bench.peers.race import Runner, Task, race, runs_in
from medusa_decoding.bench.peers.side import About, NoAnswer, PeerFailed, Prompt, Written

TASKS = [Task(Prompt(str(place), [place]), [1] * (place + 2)) for place in range(4)]
Log = list[tuple[str, int, int]]


class Scripted:
    """Writes what the task asks for in as many seconds as tokens; `faults`: by prompt."""

    def __init__(self, name: str, log: Log, faults: dict[int, Exception] | None = None) -> None:
        self.about = About(name, name, "", "", "")
        self._log, self._faults = log, faults or {}

    def write(self, prompt: Prompt, tokens: int) -> Written:
        self._log.append((self.about.name, prompt.ids[0], tokens))
        if prompt.ids[0] in self._faults:
            raise self._faults[prompt.ids[0]]
        return Written(tokens - 1, tokens - 1.0, 0.5, [1] * tokens, steps=1)

    def log_likelihood(self, tokens: Sequence[int]) -> None: ...

    def close(self) -> None: ...


def test_each_prompt_begins_with_another_side_and_all_write_the_same_length() -> None:
    log: Log = []
    runners = [Runner(Scripted(name, log), 4) for name in "abc"]
    race(runners, TASKS)
    # The first three come once more at the end.
    assert ["".join(name for name, at, _ in log if at == place) for place in range(4)] == [
        "abcabc", "bcabca", "cabcab", "abc",
    ]  # fmt: skip
    assert [place for _, place, _ in log[12:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [run.prompt for run in runners[1].repeats] == [0, 1, 2]
    assert all(tokens == place + 2 for _, place, tokens in log)
    assert [run.tokens for run in runners[1].runs] == [1, 2, 3, 4]
    assert all(run.identical and run.tokens_per_second == 1 for run in runners[1].runs)
    assert (runners[1].tokens, runners[1].steps) == (10, 4)


def test_a_slow_side_has_the_first_prompts_only() -> None:
    log: Log = []
    runners, told = [Runner(Scripted("a", log), 4), Runner(Scripted("slow", log), 2)], list[int]()
    race(runners, TASKS, lambda runs, _: told.append(runs))
    assert [place for name, place, _ in log if name == "slow"] == [0, 1, 0, 1]
    assert sum(told) == len(told) == runs_in(runners, TASKS) == 11


def test_a_side_that_fails_leaves_and_the_others_go_on() -> None:
    log: Log = []
    failing = Runner(Scripted("failing", log, {1: PeerFailed("it crashed")}), 4)
    other, told = Runner(Scripted("other", log), 4), list[int]()
    race([failing, other], TASKS, lambda runs, _: told.append(runs))
    assert failing.failure == "prompt 2: it crashed"
    assert [run.prompt for run in failing.runs] == [0]
    assert [run.prompt for run in other.runs] == [0, 1, 2, 3]
    assert sum(told) == 14


def test_a_prompt_without_an_answer_is_left_out_for_that_side_alone() -> None:
    log: Log = []
    runner = Runner(Scripted("a", log, {2: NoAnswer("nothing")}), 4)
    race([runner], TASKS)
    assert runner.failure is None
    assert [run.prompt for run in runner.runs] == [0, 1, 3]
