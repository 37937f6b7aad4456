from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from medusa_decoding.decoding import Context, Proposals
from medusa_decoding.tuning.guesses import ENDED, Guesses, guesses_in


class Counting:
    """Guesses that head h's token is one of root + h, root + h + 1; states are what decided the root."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        self.states.extend(context.hidden for context in contexts)
        heads = np.arange(1, 4)[:, None]
        return [Proposals(one.root + heads + np.arange(2), np.full((3, 2), [0.5, 0.25])) for one in contexts]


def test_guesses_are_compared_with_what_follows() -> None:
    drafter = Counting()
    found = guesses_in(drafter, [([1, 2, 4, 9], ["a", "b", "c", "d"]), ([5], ["e"]), ([5, 6], ["f", "g"])])
    assert drafter.states == ["a", "b", "c", "f"]
    assert found.ranks.tolist() == [[0, 1, 2], [1, 2, ENDED], [2, ENDED, ENDED], [0, ENDED, ENDED]]
    assert found.texts.tolist() == [0, 0, 0, 2]
    assert found.probabilities.shape == (4, 3, 2)
    assert (len(found), found.heads, found.choices) == (4, 3, 2)


def test_figures_of_a_hand_made_table() -> None:
    ranks = np.array([[0, 0], [0, 2], [1, 0], [2, ENDED]])
    table = Guesses(np.zeros((4, 2, 2)), ranks, np.array([4, 4, 7, 9]))
    assert table.accuracy(1).tolist() == [0.5, pytest.approx(2 / 3)]
    assert table.accuracy(2).tolist() == [0.75, pytest.approx(2 / 3)]
    assert table.on_path().tolist() == [[True, True], [True, True], [True, False], [True, False]]
    assert table.whole().tolist() == [True, True, True, False]
    assert table.folds(2).tolist() == [0, 0, 1, 0]
    assert table.of(table.whole()).texts.tolist() == [4, 4, 7]


def test_texts_of_one_token_have_nothing_to_guess() -> None:
    with pytest.raises(ValueError, match="no text has two tokens"):
        guesses_in(Counting(), [([5], ["a"])])
