from __future__ import annotations

import numpy as np

from medusa_decoding.decoding import BestFirstPlanner, Outcome, Proposals, StaticPlanner
from medusa_decoding.decoding.tree import parse_choices

GUESSES = Proposals(np.array([[21, 22], [31, 32]]), np.array([[0.6, 0.3], [0.5, 0.4]]))


def test_best_first_planner_grows_a_tree_per_sequence() -> None:
    trees = BestFirstPlanner(rows=4).grow(
        [1, 2, 3], [GUESSES, Proposals.none(), GUESSES], [9, 9, 1], [5, 5, 5]
    )
    assert [tree.tokens.tolist() for tree in trees] == [[1, 21, 22, 31], [2], [3, 21, 22]]


def test_one_row_is_the_root_alone() -> None:
    assert [len(tree) for tree in BestFirstPlanner(rows=1).grow([1], [GUESSES], [9], [5])] == [1]


def test_static_planner_fills_its_choices_for_each_sequence() -> None:
    planner = StaticPlanner(parse_choices([[1], [1, 0]]))
    trees = planner.grow([1, 2, 3], [GUESSES, Proposals.none(), GUESSES], [9, 9, 1], [5, 5, 5])
    assert [tree.tokens.tolist() for tree in trees] == [[1, 22, 31], [2], [3, 22]]


def test_planners_that_know_no_cost_always_ask_for_guesses() -> None:
    for planner in (BestFirstPlanner(), StaticPlanner(())):
        planner.observe(Outcome(True, [5], [16], [1]))
        assert planner.drafts(1)
