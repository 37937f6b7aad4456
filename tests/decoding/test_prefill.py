from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.decoding import Decoder, SamplingParameters
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.prefill import shares
from tests.decoding.toy import ToyEngine, decoded, random_table


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 60))
def test_short_prompts_end_all_others_go_on_alike(wanted: list[int], budget: int) -> None:
    rows = shares(wanted, budget)
    assert all(0 <= had <= most for had, most in zip(rows, wanted, strict=True))
    if sum(wanted) <= budget:
        assert rows == wanted
        return
    quarter = max(1, budget // 4)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    sums = list(itertools.accumulate(wanted[place] for place in order))
    short = order[: sum(one <= budget - quarter for one in sums)]
    if not any(wanted[place] for place in short):
        short = []
    others = [place for place in range(len(wanted)) if place not in short]
    assert all(rows[place] == wanted[place] for place in short)
    # The others go on in any case: with a quarter, or with all where nobody can end.
    assert sum(rows[place] for place in others) == (quarter if short else budget)
    going_on = [rows[place] for place in others if rows[place] < wanted[place]]
    assert max(going_on) - min(going_on) <= 1


def test_a_short_prompt_is_never_kept_waiting_by_long_ones() -> None:
    assert shares([1500, 1500, 40], 64) == [8, 8, 40]


def texts() -> list[Text]:
    sampling = SamplingParameters(temperature=0.7)
    prompts = [[token % 6 for token in range(200)], [1, 2, 3], [4, 5, 0, 1, 2, 3, 4]]
    return [Text(prompt, sampling, max_tokens=6) for prompt in prompts]


def test_a_long_prompt_does_not_hold_up_short_ones() -> None:
    base = ToyEngine(random_table(6, seed=1))
    together = texts()
    steps = list(Decoder(base, prefill_budget=12).decode(together))
    assert max(base.sizes) <= 12 + 2
    first = next(place for place, step in enumerate(steps) if step.tokens)
    assert steps[first].sequence is together[1] and first < 3
    assert [text.tokens for text in together] == decoded(
        Decoder(ToyEngine(random_table(6, seed=1))), *texts()
    )


def test_prompts_for_which_no_row_is_left_wait() -> None:
    base = ToyEngine(random_table(6, seed=1))
    together = texts()
    decoder = Decoder(base, prefill_budget=2)
    assert [step.sequence for step in decoder.step(together)] == together[:2]
    for _ in decoder.decode(together):
        pass
    assert max(base.sizes) <= 2 + 2
    assert [text.tokens for text in together] == decoded(
        Decoder(ToyEngine(random_table(6, seed=1))), *texts()
    )
