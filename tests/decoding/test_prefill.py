from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.decoding import Decoder, SamplingParameters
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.prefill import shares
from tests.decoding.toy import ToyEngine, decoded, random_table


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(0, 60))
def test_all_get_the_same_or_all_they_want(wanted: list[int], budget: int) -> None:
    given_rows = shares(wanted, budget)
    assert sum(given_rows) == min(budget, sum(wanted))
    assert all(0 <= rows <= most for rows, most in zip(given_rows, wanted, strict=True))
    most = max(given_rows, default=0)
    for place, (rows, want) in enumerate(zip(given_rows, wanted, strict=True)):
        # Who wanted more has at most one row less than anyone, and that only after those before it.
        assert rows in (want, most) or (rows == most - 1 and most not in given_rows[place:])


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
