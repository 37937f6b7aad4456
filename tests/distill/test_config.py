from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.distill import DistillConfig
from medusa_decoding.errors import UserError

NEEDED: dict[str, Any] = {"model": "m", "prompts": "p.jsonl", "out": "folder/answers.jsonl"}


def test_paths_stand_beside_the_answers() -> None:
    config = DistillConfig.of(**NEEDED)
    assert config.record_path == Path("folder/answers.jsonl.config.json")
    assert config.dropped_path == Path("folder/answers.dropped.jsonl")
    assert config.self_prompts_path == Path("folder/answers.self-prompts.jsonl")
    assert config.cache_folder == Path("folder/hidden")


def test_recipe_holds_what_changes_an_answer() -> None:
    assert DistillConfig.of(**NEEDED).recipe() == DistillConfig.of(**NEEDED, batch=3, limit=2).recipe()
    assert DistillConfig.of(**NEEDED).recipe() != DistillConfig.of(**NEEDED, max_tokens=3).recipe()


def test_files_may_be_several() -> None:
    assert DistillConfig.of(**NEEDED).prompts == (Path("p.jsonl"),)
    several = DistillConfig.of(**{**NEEDED, "prompts": ["a", "b"]}, exclude=["c"])
    assert (several.prompts, several.exclude) == ((Path("a"), Path("b")), (Path("c"),))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**NEEDED, "bach": 3}, "unknown key 'bach'; known are model, prompts"),
        ({"model": "m", "prompts": "p"}, "the key 'out' is missing"),
        ({**NEEDED, "temperature": -1}, "'temperature' cannot be -1"),
        ({**NEEDED, "batch": "many"}, "'batch' cannot be 'many'"),
        ({"model": "m", "out": "o"}, "nothing to answer; give --prompts or --self-prompts"),
        ({**NEEDED, "answers": 2}, "2 greedy answers would all be the same; give a --temperature"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DistillConfig.of(**fields)
