from __future__ import annotations

import pytest

from medusa_decoding.decoding import LOOKUP, Statistics


def test_counts_per_head() -> None:
    statistics = Statistics()
    statistics.count_step([0, 1, 1, 2, 3], [1, 2, 0])
    statistics.count_step([0, 1, 2], [0])
    statistics.count_step([0], [0])
    assert (statistics.steps, statistics.tokens, statistics.nodes) == (3, 5, 9)
    assert statistics.drafted == [3, 2, 1]
    assert statistics.accepted == [1, 1]
    assert statistics.acceleration_rate == pytest.approx(5 / 3)


def test_guesses_of_lookup_count_for_no_head() -> None:
    statistics = Statistics()
    statistics.count_step([0, LOOKUP, 1, LOOKUP, LOOKUP, 3], [LOOKUP, LOOKUP, 3, 0])
    assert (statistics.drafted, statistics.accepted) == ([1, 0, 1], [0, 0, 1])
    assert (statistics.looked_up, statistics.looked_up_accepted, statistics.nodes) == (3, 2, 6)


def test_rates_of_a_text_without_steps() -> None:
    nothing = Statistics()
    assert (nothing.acceleration_rate, nothing.tokens_per_second, nothing.seconds_per_step) == (1, 0, 0)


def test_add_joins_counts_and_times() -> None:
    first = Statistics(prompt_tokens=3, steps=2, tokens=4, decode_seconds=1.0, drafted=[2], accepted=[1])
    second = Statistics(
        cached_tokens=1, steps=1, tokens=3, decode_seconds=0.5, drafted=[1, 1], accepted=[1, 1]
    )
    first.add(second)
    assert (first.prompt_tokens, first.cached_tokens, first.steps, first.tokens) == (3, 1, 3, 7)
    assert (first.drafted, first.accepted) == ([3, 1], [2, 1])
    assert first.tokens_per_second == pytest.approx(7 / 1.5)
    assert first.seconds_per_step == pytest.approx(0.5)
    assert second.drafted == [1, 1]
