from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.bench.suite import Question, categories, load_suite, round_robin
from medusa_decoding.errors import UserError


def question(number: int, category: str) -> Question:
    return Question(question_id=number, category=category, turns=("Why?",))


def line(**changes: object) -> str:
    return json.dumps({"question_id": 1, "category": "qa", "turns": ["Why?", "And then?"], **changes})


def test_a_suite_has_a_question_per_line_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(
        f"\ufeff{line()}\n\n{line(question_id='HumanEval/2', category='code', reference=['x'])}\n"
    )
    assert load_suite(path) == [
        Question(question_id=1, category="qa", turns=("Why?", "And then?")),
        Question(question_id="HumanEval/2", category="code", turns=("Why?", "And then?")),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (f"{line()}\n{{", "line 2 is not JSON"),
        ('{"question_id": 1, "category": "qa"}', "line 1: turns is missing"),
        ('{"question_id": 1, "turns": ["x"]}', "line 1: category is missing"),
        (line(turns=[]), "line 1: turns is wrong"),
        (line(turns=["a", ""]), r"line 1: turns\.1 is wrong"),
        (line(turns="Why?"), "line 1: turns is wrong"),
        ("[1]", "line 1: the line is wrong"),
    ],
)
def test_a_wrong_suite_is_explained_in_one_line_with_its_number(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        load_suite(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_suite(tmp_path / "none.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_suite(tmp_path / "binary")


def test_a_limit_takes_questions_in_turn_from_each_category() -> None:
    questions = [question(1, "a"), question(2, "a"), question(3, "a"), question(4, "b"), question(5, "c")]
    assert [one.question_id for one in round_robin(questions)] == [1, 4, 5, 2, 3]
    assert [one.question_id for one in round_robin(questions, 4)] == [1, 4, 5, 2]
    assert categories(questions) == ["a", "b", "c"]
