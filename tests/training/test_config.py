from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.training import TrainingConfig, load_config

LINES = "model: m\ndata: d\nout: o\n"
NEEDED: dict[str, Any] = {"model": "m", "data": "folder/answers.jsonl", "out": "heads"}


def test_file_is_read_and_overrides_win(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: m\ndata: folder/answers.jsonl\nout: heads\nepochs: 7\nnum_heads: 2\n", encoding="utf-8"
    )
    config = load_config(path, num_heads=3)
    assert config == TrainingConfig.of(**NEEDED, epochs=7, num_heads=3)
    assert load_config(path, hidden_cache="elsewhere").hidden_cache == Path("elsewhere")
    path.write_text("model: m\ndata: [a.jsonl, b.parquet]\nout: heads\n", encoding="utf-8")
    assert load_config(path).data == (Path("a.jsonl"), Path("b.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: m\nepoch: 3\n", r"recipe\.yaml: unknown key 'epoch'; known are model, data"),
        ("model: m\n", "the key 'data' is missing"),
        ("model: m\ndata: []\nout: o\n", "'data' cannot be"),
        ("model: m\ndata: d\nout: o\nepochs: 0\n", "'epochs' cannot be 0"),
        (f"{LINES}draft_vocabulary: some\n", "'draft_vocabulary' cannot be 'some': .* integer.*; .* 'auto'"),
        (f"{LINES}draft_vocabulary: 0\n", "'draft_vocabulary' cannot be 0: .* greater than or equal to 1"),
        (f"{LINES}draft_vocabulary: auto\nvalidation_fraction: 0\n", "draft_vocabulary auto needs texts"),
        ("- a\n", "must hold settings"),
        ("1: a\n", "must hold settings"),
        ("", "must hold settings"),
        ("model: [\n", "is not valid YAML"),
    ],
)
def test_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("fields", [{"projection": "shared", "condition": "none"}, {"projection": "own"}])
def test_heads_without_anything_to_train_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="num_layers 0 needs"):
        TrainingConfig.of(**NEEDED, num_layers=0, **fields)
    assert TrainingConfig.of(**NEEDED, num_layers=0, projection="own", condition="none").num_layers == 0


def test_recipe_holds_what_changes_the_heads() -> None:
    recipe = TrainingConfig.of(**NEEDED).recipe()
    same = {
        "out": "other",
        "data": "copy.jsonl",
        "checkpoint_seconds": 5,
        "device": "cpu",
        "hidden_cache": "h",
    }
    assert TrainingConfig.of(**{**NEEDED, **same}).recipe() == recipe
    assert TrainingConfig.of(**NEEDED, learning_rate=0.1).recipe() != recipe
