from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from medusa_decoding.cli.fields import options_of, spread


class Recipe(BaseModel):
    model: str
    data: Path
    rate: float = 0.5
    layers: int | None = Field(None, ge=1)
    kind: Literal["big", "small"] = "big"
    keep: bool = True
    place: Path | Literal["auto"] = "auto"


HELPS = {name: f"About {name}." for name in Recipe.model_fields}


def called(*arguments: str, optional: bool = False) -> tuple[int, str, dict[str, Any]]:
    """Exit status, output and the fields that the verb was given."""
    given: dict[str, Any] = {}

    @options_of(Recipe, HELPS, all_optional=optional)
    def verb(extra: bool = False, **fields: Any) -> None:
        """Do it."""
        given.update(fields, extra=extra)

    app = typer.Typer(rich_markup_mode=None)
    app.command()(verb)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    return result.exit_code, result.output, given


def test_only_what_was_given_is_passed_on() -> None:
    assert called("m", "--data", "d") == (0, "", {"model": "m", "data": Path("d"), "extra": False})


def test_flags_are_read_as_the_fields_types() -> None:
    flags = [
        "--data",
        "d",
        "--rate",
        "1",
        "--layers",
        "2",
        "--kind",
        "small",
        "--no-keep",
        "--place",
        "here",
        "--extra",
    ]
    _, _, given = called("m", *flags)
    assert given == {
        "model": "m",
        "data": Path("d"),
        "rate": 1.0,
        "layers": 2,
        "kind": "small",
        "keep": False,
        "place": "here",
        "extra": True,
    }


@pytest.mark.parametrize("arguments", [["m"], ["m", "--data", "d", "--kind", "medium"]])
def test_what_is_missing_or_no_choice_is_refused(arguments: list[str]) -> None:
    assert called(*arguments)[0] == 2


def test_all_may_be_left_to_a_file() -> None:
    assert called(optional=True) == (0, "", {"extra": False})


def test_the_help_shows_the_configurations_own_defaults() -> None:
    _, shown, _ = called("--help")
    assert "About rate. [default: 0.5]" in shown
    assert "About keep. [default: on]" in shown
    assert "About layers.\n" in shown


@dataclass(frozen=True)
class Group:
    """Options that verbs share."""

    width: Annotated[int, typer.Option(help="About width.")] = 3
    deep: bool = False


def test_a_dataclass_argument_becomes_its_fields_as_options_in_its_place() -> None:
    given: list[object] = []

    @spread
    def verb(*, name: str, group: Group, loud: bool = False) -> None:
        """Do it."""
        given.extend([name, group, loud])

    app = typer.Typer(rich_markup_mode=None)
    app.command()(verb)
    runner = CliRunner(env={"COLUMNS": "200"})
    assert runner.invoke(app, ["n", "--width", "5", "--loud"]).exit_code == 0
    assert given == ["n", Group(width=5), True]
    shown = runner.invoke(app, ["--help"]).output
    assert shown.index("--width") < shown.index("--deep") < shown.index("--loud")
    assert "About width.  [default: 3]" in shown
