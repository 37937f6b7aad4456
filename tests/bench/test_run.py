from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from medusa_decoding.bench import run as bench_run
from medusa_decoding.bench.run import Counts, Mark, Run, run_once, run_suite
from medusa_decoding.bench.suite import Question
from medusa_decoding.decoding import LOOKUP
from medusa_decoding.errors import UserError
from medusa_decoding.generation import GenerationOptions, Medusa

# A prefill token and three steps of 2, 1 and 3 tokens with 4 rows each.
RUN = Run(
    text="abcdefg",
    tokens=[1, 2, 3, 4, 5, 6, 7],
    sources=[0, 1, 0, LOOKUP, 1, 2, 0],
    marks=[Mark(2, 4, 0.5), Mark(3, 8, 1.0), Mark(6, 12, 1.5)],
    prompt_tokens=3,
    prefill_seconds=0.1,
)


def test_counts_leave_out_the_token_of_the_prefill() -> None:
    assert RUN.counts(7) == Counts(tokens=6, steps=3, nodes=12, seconds=1.5, accepted=[2, 1], looked_up=1)


def test_a_step_beyond_the_length_counts_whole_in_time_and_in_part_in_tokens() -> None:
    assert RUN.counts(4) == Counts(tokens=3, steps=2, nodes=8, seconds=1.0, accepted=[1], looked_up=1)
    assert RUN.counts(5) == Counts(tokens=4, steps=3, nodes=12, seconds=1.5, accepted=[2], looked_up=1)


def test_a_text_of_the_prefills_token_alone_has_no_steps() -> None:
    assert RUN.counts(1) == Counts()
    assert RUN.counts(0) == Counts()


def test_counts_add_up_per_head() -> None:
    total = Counts(1, 1, 2, 0.5, [1], 1)
    total.add(Counts(4, 2, 8, 1.0, [1, 2], 3))
    assert total == Counts(5, 3, 10, 1.5, [2, 2], 4)


def test_a_run_holds_what_the_statistics_say(tiny_medusa: Medusa) -> None:
    options = GenerationOptions(max_tokens=20, ignore_eos=True)
    run = run_once(tiny_medusa, [1, 2, 3], options, speculative=True)
    generation = tiny_medusa.generate([1, 2, 3], options)
    counts = run.counts(len(run.tokens))
    statistics = generation.statistics
    assert run.tokens == generation.tokens
    assert (counts.tokens, counts.steps, counts.nodes) == (
        statistics.tokens,
        statistics.steps,
        statistics.nodes,
    )
    assert counts.accepted == [count for count in statistics.accepted if count]
    assert counts.looked_up == statistics.looked_up_accepted


def test_both_variants_of_all_turns_see_the_plain_answers_as_history(
    tiny_medusa: Medusa, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, list[int]]] = []
    original = run_once

    def spy(medusa: Medusa, prompt: Sequence[int], options: Any, *, speculative: bool) -> Run:
        seen.append((speculative, list(prompt)))
        run = original(medusa, prompt, options, speculative=speculative)
        # Were the heads' answer taken into the history, this would show.
        return dataclasses.replace(run, text="wrong") if speculative else run

    monkeypatch.setattr(bench_run, "run_once", spy)
    questions = [
        Question(question_id=1, category="qa", turns=("Hi", "Go")),
        Question(question_id=2, category="qa", turns=("Yes",)),
    ]
    advanced: list[int] = []
    done, skipped = run_suite(
        tiny_medusa, questions, GenerationOptions(max_tokens=6), lambda: advanced.append(1)
    )
    assert [(one.question.question_id, one.turn) for one in done] == [(1, 0), (1, 1), (2, 0)]
    assert [speculative for speculative, _ in seen] == [False, True, True, False, False, True]
    assert all(seen[place][1] == seen[place + 1][1] for place in (0, 2, 4))
    assert len(advanced) == 3
    assert skipped == []
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": done[0].plain.text},
        {"role": "user", "content": "Go"},
    ]
    assert seen[2][1] == tiny_medusa.encode(history)
    assert all(one.difference is None for one in done)


def test_turns_that_do_not_fit_are_left_out_with_those_after_them(tiny_medusa: Medusa) -> None:
    questions = [
        Question(question_id=1, category="qa", turns=("Hi", "x" * 300, "Go")),
        Question(question_id=2, category="qa", turns=("Yes",)),
    ]
    advanced: list[int] = []
    done, skipped = run_suite(
        tiny_medusa, questions, GenerationOptions(max_tokens=3), lambda: advanced.append(1)
    )
    assert [(one.question.question_id, one.turn) for one in done] == [(1, 0), (2, 0)]
    assert [(one.question.question_id, one.turn) for one in skipped] == [(1, 1), (1, 2)]
    assert "context of 256" in skipped[0].reason
    assert len(advanced) == 4


def test_a_suite_of_which_nothing_fits_is_an_error(tiny_medusa: Medusa) -> None:
    questions = [Question(question_id=1, category="qa", turns=("x" * 300,))]
    with pytest.raises(UserError, match="no prompt"):
        run_suite(tiny_medusa, questions, GenerationOptions(max_tokens=3))


def test_where_nothing_guesses_there_is_nothing_to_measure(tiny_medusa: Medusa) -> None:
    plain = dataclasses.replace(tiny_medusa, heads=None, lookup=None)
    with pytest.raises(UserError, match="--heads"):
        run_suite(plain, [Question(question_id=1, category="qa", turns=("Hi",))], GenerationOptions())
