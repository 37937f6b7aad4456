from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medusa_decoding.serving.pace import LEAST, STEPS, Pace

seconds = st.floats(0.001, 1)


def test_all_rows_are_read_until_something_is_known() -> None:
    pace = Pace(100)
    pace.note(100, 1.0)
    assert pace.rows == 100
    pace.note(0, 0.01)
    assert pace.rows == 100


@given(seconds, seconds, st.integers(1, 500))
def test_a_step_takes_about_four_times_as_long_as_one_without_prompts(
    step: float, row: float, most: int
) -> None:
    pace = Pace(most)
    pace.note(0, step)
    for _ in range(3):
        pace.note(pace.rows, step + pace.rows * row)
    wanted = (STEPS - 1) * step / row
    assert min(LEAST, most) <= pace.rows <= most
    if LEAST < wanted < most:
        assert wanted - 1.01 <= pace.rows <= wanted + 0.01


def test_fewer_rows_are_read_as_rows_cost_more() -> None:
    pace = Pace(1000)
    pace.note(0, 0.1)
    read = []
    for place in range(1, 20):
        pace.note(pace.rows, 0.1 + pace.rows * place / 1000)
        read.append(pace.rows)
    assert read == sorted(read, reverse=True) and read[-1] < read[0]
