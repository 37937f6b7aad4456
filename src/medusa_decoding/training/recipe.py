"""Recipes: from a base model to its heads, distillation and training in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from medusa_decoding.distill.config import DistillConfig, validated
from medusa_decoding.files import atomic_write
from medusa_decoding.training.config import TrainingConfig, read_settings
from medusa_decoding.training.processes import refuse_several

if TYPE_CHECKING:
    from medusa_decoding.distill import DistillReport
    from medusa_decoding.training.report import TrainingReport

RECIPE_FILE = "recipe.yaml"


class Recipe(BaseModel):
    """How heads are made from nothing: the base model answers prompts, and heads are trained on its answers.

    model: the base model, as for `load`. out: a folder for all of it: `answers/answers.jsonl` with the hidden
    states, and `heads`. distill, train: the settings of both, of which `model`, `out` and `data` follow from
    the rest; these may not be given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    out: Path
    distill: DistillConfig
    train: TrainingConfig

    @model_validator(mode="before")
    @classmethod
    def _say_once(cls, fields: Any) -> Any:
        """Give both sections what follows from the rest."""
        if not isinstance(fields, dict) or not isinstance(fields.get("out"), str | Path):
            return fields
        sections = {}
        for name, follows in _following(fields.get("model"), Path(fields["out"])).items():
            section = fields.get(name)
            given = {} if section is None else section
            if isinstance(given, dict):
                if twice := sorted(follows.keys() & given.keys()):
                    raise ValueError(f"'{name}.{twice[0]}' follows from the rest of the recipe; leave it out")
                sections[name] = {**given, **follows}
        return {**fields, **sections}

    @classmethod
    def of(cls, **fields: Any) -> Recipe:
        """The recipe of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the recipe")

    def as_yaml(self) -> str:
        """The content of a file that says the same, with all defaults written out and without `out`."""
        content = self.model_dump(mode="json", exclude={"out"})
        for name, follows in _following(self.model, self.out).items():
            content[name] = {key: value for key, value in content[name].items() if key not in follows}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def load_recipe(path: Path | str, *, distill: dict[str, Any] | None = None, **overrides: Any) -> Recipe:
    """Read a recipe from a YAML file; `overrides` (flags, say) and those in the section `distill` win.

    Paths in it are relative to where this runs. Raises UserError when the file cannot be read, or naming the
    first key that is unknown, missing or wrong.
    """
    content = {**read_settings(path), **overrides}
    section = content.get("distill")
    if distill and (section is None or isinstance(section, dict)):
        content["distill"] = {**(section or {}), **distill}
    return validated(Recipe, content, str(path))


def follow(
    recipe: Recipe, *, progress: bool = True, on_answers: Callable[[DistillReport], None] | None = None
) -> TrainingReport:
    """Distil, train, and write the recipe beside the heads. Whatever was stopped goes on where it was.

    on_answers: called between the two. Raises UserError as `distill` and `train` do.
    """
    from medusa_decoding.distill.run import distill
    from medusa_decoding.training.run import train

    refuse_several("a recipe")
    answers = distill(recipe.distill, progress=progress)
    if on_answers is not None:
        on_answers(answers)
    report = train(recipe.train, progress=progress)
    with atomic_write(recipe.train.out / RECIPE_FILE) as temporary:
        temporary.write_text(recipe.as_yaml(), encoding="utf-8")
    return report


def _following(model: Any, out: Path) -> dict[str, dict[str, Any]]:
    """What each section has from the rest of the recipe."""
    answers = out / "answers" / "answers.jsonl"
    return {
        "distill": {"model": model, "out": answers},
        "train": {"model": model, "data": (answers,), "out": out / "heads"},
    }
