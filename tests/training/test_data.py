from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.errors import UserError
from medusa_decoding.training.data import (
    as_draft_ids,
    auto_size,
    build_positions,
    check_ids,
    coverage,
    draft_vocabulary,
    following_tokens,
    split,
)
from medusa_decoding.training.loss import IGNORED, OUTSIDE


def keys(answers: list[Answer]) -> set[str]:
    return {answer.key for answer in answers}


def states(*rows: float) -> torch.Tensor:
    return torch.tensor([[row, -row] for row in rows])


def test_labels_stand_beside_the_state_that_decided_their_root(tmp_path: Path) -> None:
    """Prompt [90, 91], answer [10, 11, 12, 13]: the prompt's last row decided the root 10, and there head 1
    guesses 11. The prompt is no root and no label; at the answer's last token there is nothing to guess.
    """
    cache = HiddenCache(tmp_path, "base")
    cache.write({"a": states(1, 2, 3, 4), "b": states(5, 6), "c": states(7)})
    answers = [Answer("a", [90, 91], [10, 11, 12, 13]), Answer("b", [92], [20, 21]), Answer("c", [93], [30])]
    positions = build_positions(answers, cache, 3, 2, None, 100)
    assert positions.hidden.tolist() == states(1, 2, 3, 4, 5, 6, 7).tolist()
    assert positions.roots.tolist() == [10, 11, 12, 13, 20, 21, 30]
    nothing = [IGNORED] * 3
    assert positions.labels.tolist() == [
        [11, 12, 13],
        [12, 13, IGNORED],
        [13, IGNORED, IGNORED],
        nothing,
        [21, IGNORED, IGNORED],
        nothing,
        nothing,
    ]
    assert positions.rows_with_labels().tolist() == [0, 1, 2, 4]


def test_labels_are_draft_ids(tmp_path: Path) -> None:
    cache = HiddenCache(tmp_path, "base")
    cache.write({"a": states(1, 2, 3)})
    positions = build_positions([Answer("a", [9], [4, 7, 5])], cache, 2, 2, torch.tensor([2, 5]), 10)
    assert positions.labels.tolist() == [[OUTSIDE, 1], [1, IGNORED], [IGNORED, IGNORED]]
    assert positions.roots.tolist() == [4, 7, 5]


def test_states_beyond_float16_are_kept(tmp_path: Path) -> None:
    cache = HiddenCache(tmp_path, "base")
    cache.write({"a": states(1, 2), "b": states(1e6, 3)})
    answers = [Answer("a", [9], [1, 2]), Answer("b", [9], [1, 2])]
    assert build_positions(answers, cache, 1, 2, None, 10).hidden.tolist() == states(1, 2, 1e6, 3).tolist()


@pytest.mark.parametrize("wrong", [states(1, 2, 3), torch.ones(2, 3)])
def test_states_of_another_shape_are_refused(tmp_path: Path, wrong: torch.Tensor) -> None:
    cache = HiddenCache(tmp_path, "base")
    cache.write({"a": wrong})
    with pytest.raises(UserError, match="for answer a, which needs \\(2, 2\\)"):
        build_positions([Answer("a", [9], [1, 2])], cache, 1, 2, None, 10)


def test_following_tokens() -> None:
    assert following_tokens([7, 8, 9], 2).tolist() == [[8, 9], [9, IGNORED], [IGNORED, IGNORED]]
    assert following_tokens([7], 1).tolist() == [[IGNORED]]


def test_as_draft_ids() -> None:
    tokens = torch.tensor([[3, 0], [5, IGNORED]])
    assert as_draft_ids(tokens, None, 6).tolist() == tokens.tolist()
    assert as_draft_ids(tokens, torch.tensor([0, 3]), 6).tolist() == [[1, 0], [OUTSIDE, IGNORED]]


def test_draft_vocabulary_holds_the_most_frequent_tokens_and_the_ends() -> None:
    answers = [Answer("a", [1], [7, 7, 5, 5, 3]), Answer("b", [1], [8, 9])]
    assert draft_vocabulary(answers, 3, [2], 12).tolist() == [2, 5, 7]
    # Of 3, 8 and 9, each there once, the lowest comes in; of tokens that are not there too.
    assert draft_vocabulary(answers, 4, [2], 12).tolist() == [2, 3, 5, 7]
    assert draft_vocabulary(answers, 7, [2, 99], 12).tolist() == [0, 2, 3, 5, 7, 8, 9]
    assert coverage(answers, torch.tensor([2, 5, 7])) == pytest.approx(4 / 7)
    assert coverage(answers, None) == coverage([], torch.tensor([2])) == 1.0
    with pytest.raises(UserError, match="larger than the model's \\(12\\)"):
        draft_vocabulary(answers, 13, [], 12)


@settings(deadline=None, max_examples=50)
@given(
    trained=st.lists(st.integers(0, 4999), min_size=1, max_size=60),
    held_out=st.lists(st.integers(0, 4999), min_size=1, max_size=250),
    common=st.integers(0, 400),
    end=st.integers(0, 4999),
)
def test_the_chosen_draft_vocabulary_is_the_least_that_covers_the_held_out_tokens(
    trained: list[int], held_out: list[int], common: int, end: int
) -> None:
    """Against trying one size after the other. `common`: a token that may fill nearly all held-out text."""
    training = [Answer("a", [1], [*trained, 7])]
    answers = [Answer("b", [1], [*held_out, *[7] * common])]
    sizes = [1024, 2048, 3072, 4096, 5000]
    enough = [
        size for size in sizes if coverage(answers, draft_vocabulary(training, size, [end], 5000)) >= 0.99
    ]
    assert auto_size(training, answers, [end], 5000) == enough[0]


def test_a_draft_vocabulary_is_not_chosen_without_held_out_texts() -> None:
    with pytest.raises(UserError, match="give it as a number"):
        auto_size([Answer("a", [1], [2])], [], [3], 10)


def test_split_depends_on_ids_alone() -> None:
    answers = [Answer(str(number), [1], [2]) for number in range(400)]
    training, validation = split(answers, 0.1)
    assert 20 < len(validation) < 60 and len(training) + len(validation) == 400
    again_training, again_validation = split(answers[:200], 0.1)
    assert keys(again_validation) == keys(validation) & keys(answers[:200])
    assert len(again_training) + len(again_validation) == 200


def test_each_side_of_the_split_has_a_text() -> None:
    answers = [Answer(str(number), [1], [2]) for number in range(3)]
    assert [len(side) for side in split(answers, 1e-9)] == [2, 1]
    assert [len(side) for side in split(answers, 0.999999)] == [1, 2]
    assert [len(side) for side in split(answers, 0.0)] == [3, 0]
    assert [len(side) for side in split(answers[:1], 0.5)] == [1, 0]


def test_answers_to_one_prompt_stand_on_one_side() -> None:
    answers = [Answer(f"{number}#{n}", [1], [2], str(number)) for number in range(100) for n in range(3)]
    training, validation = split(answers, 0.1)
    sides = [{answer.group for answer in side} for side in (training, validation)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 100
    assert len(validation) == 3 * len(sides[1]) > 0


def test_answers_of_a_larger_vocabulary_are_refused() -> None:
    check_ids([Answer("a", [1], [4, 9])], 10)
    with pytest.raises(UserError, match="hold token 9, but the model's ids end at 8"):
        check_ids([Answer("a", [1], [4, 9])], 9)
