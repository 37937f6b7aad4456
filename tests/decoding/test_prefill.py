from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.decoding import Decoder, SamplingParameters
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.prefill import shares
from tests.decoding.toy import ToyEngine, decoded, random_table


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 60))
def test_short_prompts_end_all_others_go_on_alike(wanted: list[int], budget: int) -> None:
    rows = shares(wanted, budget)
    assert sum(rows) <= budget and all(0 <= had <= most for had, most in zip(rows, wanted, strict=True))
    long = [place for place, most in enumerate(wanted) if rows[place] < most]
    if not long:
        return
    assert sum(rows[place] for place in long) >= 1
    short = [wanted[place] for place in range(len(wanted)) if place not in long and wanted[place]]
    quarter = max(1, budget // 4)
    if min(one for one in wanted if one) <= budget - quarter:
        assert short and max(short) <= min(wanted[place] for place in long)
        assert sum(rows) == min(budget, sum(short) + quarter) or sum(short) > budget - quarter
    else:
        assert sum(rows) == budget
    # Among those that go on, nobody has more than one row more than another.
    assert max(rows[place] for place in long) - min(rows[place] for place in long) <= 1


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
