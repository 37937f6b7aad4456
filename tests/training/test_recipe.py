from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.distill import DistillConfig
from medusa_decoding.distill.code_prompts import PYTHON_LIBRARY
from medusa_decoding.errors import UserError
from medusa_decoding.models.aliases import ALIASES
from medusa_decoding.training import Recipe, TrainingConfig, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_sections_are_the_settings_of_distillation_and_training(tmp_path: Path) -> None:
    path = written(
        tmp_path, "model: m\ndistill:\n  prompts: p.txt\n  max_tokens: 7\ntrain:\n  num_heads: 2\n"
    )
    recipe = load_recipe(path, out="made")
    answers = Path("made/answers/answers.jsonl")
    assert recipe.distill == DistillConfig.of(model="m", prompts="p.txt", max_tokens=7, out=answers)
    assert recipe.train == TrainingConfig.of(model="m", data=answers, num_heads=2, out=Path("made/heads"))


def test_overrides_win(tmp_path: Path) -> None:
    path = written(tmp_path, "model: m\ndistill: {prompts: p.txt, exclude: e.txt, seed: 3}\ntrain:\n")
    recipe = load_recipe(path, out="made", model="other", distill={"prompts": [Path("a"), Path("b")]})
    assert recipe.train.model == recipe.distill.model == "other"
    assert recipe.distill.prompts == (Path("a"), Path("b"))
    assert (recipe.distill.exclude, recipe.distill.seed) == ((Path("e.txt"),), 3)
    bare = load_recipe(written(tmp_path, "model: m\n"), out="made", distill={"prompts": Path("a")})
    assert bare.distill.prompts == (Path("a"),)


def test_what_is_stored_beside_the_heads_is_the_same_recipe_with_all_defaults(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "model": "m",
        "out": tmp_path,
        "distill": {"prompts": ["p", "q"], "temperature": 0.5},
        "train": {"draft_vocabulary": "auto", "patience": 2, "hidden_cache": "h"},
    }
    recipe = Recipe.of(**fields)
    text = recipe.as_yaml()
    assert load_recipe(written(tmp_path, text), out=tmp_path) == recipe
    told = set(DistillConfig.model_fields) | set(TrainingConfig.model_fields)
    assert {line.split(":")[0].strip() for line in text.splitlines() if ":" in line} >= told - {"out", "data"}
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: m\ntrain: {epoch: 3}\n", r"yaml: unknown key 'train\.epoch'; known are .*epochs"),
        ("model: m\ntune: {}\n", "unknown key 'tune'; known are model, out, distill, train"),
        ("distill: {prompts: p}\n", "the key 'model' is missing"),
        ("model: m\ndistill: {prompts: p}\ntrain: {epochs: 0}\n", r"'train\.epochs' cannot be 0"),
        ("model: m\ndistill: {prompts: p}\ntrain: 3\n", "'train' cannot be 3"),
        ("model: m\ndistill: {prompts: [p, 4]}\n", r"'distill\.prompts\.1' cannot be 4"),
        ("model: m\n", r"yaml: distill: there is nothing to answer"),
        ("model: m\ndistill: {prompts: p}\ntrain: {data: d}\n", r"'train\.data' follows from the rest"),
        ("model: m\ndistill: {prompts: p, model: n}\n", r"'distill\.model' follows from the rest"),
        (
            "model: m\ndistill: {prompts: p}\ntrain: {draft_vocabulary: x}\n",
            r"'train\.draft_vocabulary' cannot be 'x': .* integer.*; or .*'auto'",
        ),
        ("[]", "must hold settings"),
    ],
)
def test_wrong_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(written(tmp_path, text), out=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_recipe_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key 'out' is missing"):
        load_recipe(written(tmp_path, "model: m\n"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_this_project_need_nothing_but_a_packaged_model(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, out=tmp_path)
    assert recipe.model in ALIASES
    assert recipe.distill.self_prompts
    assert {str(path) for path in recipe.distill.prompts} <= {PYTHON_LIBRARY}


def test_each_packaged_model_has_a_recipe(tmp_path: Path) -> None:
    assert {load_recipe(path, out=tmp_path).model for path in RECIPES} == set(ALIASES)
