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
    assert config.cache_folder == Path("folder/hidden")


def test_recipe_holds_what_changes_an_answer() -> None:
    assert DistillConfig.of(**NEEDED).recipe() == DistillConfig.of(**NEEDED, batch=3, limit=2).recipe()
    assert DistillConfig.of(**NEEDED).recipe() != DistillConfig.of(**NEEDED, max_tokens=3).recipe()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**NEEDED, "bach": 3}, "unknown key 'bach'; known are model, prompts"),
        ({"model": "m", "prompts": "p"}, "the key 'out' is missing"),
        ({**NEEDED, "temperature": -1}, "'temperature' cannot be -1"),
        ({**NEEDED, "batch": "many"}, "'batch' cannot be 'many'"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DistillConfig.of(**fields)
