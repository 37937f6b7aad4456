from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.distill.exclusion import Exclusion
from medusa_decoding.distill.prompts import Prompt
from medusa_decoding.errors import UserError

EIGHT = "one two three four five six seven eight"


@pytest.fixture
def exclusion(tmp_path: Path) -> Exclusion:
    suite = tmp_path / "suite.jsonl"
    records = [
        {"question_id": 1, "turns": [f"Write {EIGHT}, please.", "Now say nothing more"]},
        {"messages": [{"role": "system", "content": "you are a very helpful and kind assistant today"},
                      {"role": "user", "content": "a"},
                      {"role": "assistant", "content": "the answer stands in this file as a reference"}]},
    ]  # fmt: skip
    suite.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    text = tmp_path / "other.txt"
    text.write_text("red orange yellow green blue indigo violet white\n", encoding="utf-8")
    return Exclusion([suite, text])


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        (f"Zero, {EIGHT.upper()}! Nine", True),
        (EIGHT.replace(" ", "\n"), True),
        ("one two three four five six seven nine", False),
        ("one two three four five six seven", False),
        ("now say NOTHING more.", True),  # as short and the same
        ("now say nothing more than this", False),
        ("so the answer stands in this file as a reference", True),
        ("indigo red orange yellow green blue indigo violet white", True),
        ("you are a very helpful and kind assistant today", False),
        ("...", False),
    ],
)
def test_eight_words_in_a_row_are_enough(exclusion: Exclusion, text: str, covered: bool) -> None:
    assert exclusion.covers([text]) is covered


def test_later_turns_count(exclusion: Exclusion) -> None:
    first = [{"role": "system", "content": EIGHT}, {"role": "user", "content": "hello"}]
    assert not exclusion.covers_prompt(Prompt(1, first))
    assert exclusion.covers_prompt(Prompt(1, first, ["b", EIGHT]))


@pytest.mark.parametrize(("sharing", "covered"), [(2, True), (3, False)])
def test_the_instructions_of_a_suite_exclude_nobody(tmp_path: Path, sharing: int, covered: bool) -> None:
    suite = tmp_path / "suite.jsonl"
    asked = [f"{EIGHT} {number} with content of its own, at least eight words" for number in range(sharing)]
    asked += [f"something else altogether, number {number} of many others here" for number in range(10)]
    suite.write_text("".join(json.dumps({"turns": [text]}) + "\n" for text in asked), encoding="utf-8")
    exclusion = Exclusion([suite])
    assert exclusion.covers([f"{EIGHT} and then what no question asks"]) is covered
    # Their own words do, of each of them.
    assert exclusion.covers(["1 with content of its own, at least eight words"])


def test_nothing_excludes_nothing() -> None:
    assert not Exclusion([]).covers(["a", EIGHT])


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        Exclusion([tmp_path / "nothing.jsonl"])
