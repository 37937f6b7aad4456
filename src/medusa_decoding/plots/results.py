"""Result files: read, and recognised by what they hold, whatever they are called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medusa_decoding.errors import UserError
from medusa_decoding.plots.picture import Picture

GENERIC = ("training", "tuning")
"""Names of files that are called the same in each folder of heads."""


class Result(BaseModel):
    """What a picture needs of a result file, which holds more than that."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Machine(Result):
    """Where something was measured."""

    cpu: str | None = None
    processor: str | None = None
    cores: int | None = None

    def __str__(self) -> str:
        name = self.cpu or self.processor or "machine unknown"
        return f"{name}, {self.cores} cores" if self.cores else name


def drafting(model: str, named: str) -> str:
    """Who guesses, in a title: heads that are packaged for the model are its own."""
    return named.replace(f"packaged:{model}", "its heads")


Content = TypeVar("Content", bound=BaseModel)


@dataclass(frozen=True)
class Given(Generic[Content]):
    """A result file that was read. name: for pictures' files and for legends."""

    name: str
    content: Content


@dataclass(frozen=True)
class Kind(Generic[Content]):
    """A kind of result file.

    what: in words, with the command that writes it. keys: those of its JSON object that no other kind has
    together. form: what is read of it. pictures: those of all given files of this kind.
    """

    what: str
    keys: frozenset[str]
    form: type[Content]
    pictures: Callable[[Sequence[Given[Content]]], Iterable[Picture]]

    def fits(self, found: Any) -> bool:
        """Whether a JSON value is of this kind."""
        return isinstance(found, dict) and self.keys <= found.keys()


def read_results(paths: Sequence[Path], kinds: Sequence[Kind[Any]]) -> dict[int, list[Given[Any]]]:
    """The files by the place of their kind in `kinds`, in the order given.

    Raises UserError for a file that cannot be read, is of no known kind or is damaged, and for two files
    whose pictures would have the same names.
    """
    found: dict[int, list[Given[Any]]] = {}
    names: dict[tuple[int, str], Path] = {}
    for path in paths:
        place, given = read_result(path, kinds)
        before = names.setdefault((place, given.name), path)
        if before is not path:
            raise UserError(f"{before} and {path} have the same name, as their pictures would: rename one")
        found.setdefault(place, []).append(given)
    return found


def read_result(path: Path, kinds: Sequence[Kind[Any]]) -> tuple[int, Given[Any]]:
    """One file, and the place of its kind."""
    found = read_json(path)
    place = next((number for number, kind in enumerate(kinds) if kind.fits(found)), None)
    if place is None:
        known = "; ".join(kind.what for kind in kinds)
        raise UserError(f"{path} is no result that can be drawn; these can: {known}")
    try:
        content = kinds[place].form.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its content"
        raise UserError(
            f"{path} looks like {kinds[place].what}, but {where} is not as it should be ({first['msg']}): "
            "write it anew"
        ) from None
    name = f"{path.absolute().parent.name}-{path.stem}" if path.stem in GENERIC else path.stem
    return place, Given(name, content)


def read_json(path: Path) -> Any:
    """What a file holds; raises UserError where it is none or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: name result files that medusa wrote") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the result files in it") from None
    except ValueError:
        raise UserError(f"{path} is not JSON: name result files that medusa wrote") from None
