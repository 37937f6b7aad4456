from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding import UserError
from medusa_decoding.decoding import BestFirstPlanner, StaticPlanner
from medusa_decoding.generation.rules import acceptance_for, planner_for


def test_auto_is_left_to_whoever_knows_the_engine() -> None:
    assert planner_for("auto") is None


def test_a_tree_is_a_number_of_rows_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps([[0], [1], [0, 0]]), encoding="utf-8")
    static, named = planner_for(path), planner_for("7")
    assert isinstance(static, StaticPlanner)
    assert static.choices == ((0,), (1,), (0, 0))
    assert isinstance(named, BestFirstPlanner)
    assert named.rows == 7
    path.write_text(json.dumps({"medusa_choices": [[0]]}), encoding="utf-8")
    assert isinstance(planner_for(path), StaticPlanner)
    written = planner_for("[[0],[0,0]]")
    assert isinstance(written, StaticPlanner)
    assert written.choices == ((0,), (0, 0))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("0", "cannot have 0 rows"),
        ("-3", "cannot have -3 rows"),
        ("nowhere.json", "no tree 'nowhere.json'"),
        ("[[0],[1,0]]", "the tree in --tree cannot be used: the path"),
    ],
)
def test_trees_that_are_none_are_refused(tree: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        planner_for(tree)


@pytest.mark.parametrize("content", ["{", "[1]", '{"paths": []}', "[[0, 0]]", "[[-1]]", '[["a"]]'])
def test_a_tree_file_with_a_fault_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"tree\.json cannot be used"):
        planner_for(path)


def test_acceptance_is_exact_or_typical() -> None:
    assert acceptance_for("exact").lossless
    assert not acceptance_for("typical").lossless
    with pytest.raises(UserError, match="unknown acceptance 'greedy': choose exact"):
        acceptance_for("greedy")
