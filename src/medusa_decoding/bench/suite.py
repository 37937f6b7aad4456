"""Suites of prompts, one JSON object per line, as Spec-Bench (arXiv:2401.07851) has them:
`{"question_id": 81, "category": "writing", "turns": ["first message", "second message"]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medusa_decoding.errors import UserError

NonEmpty = Annotated[str, Field(min_length=1)]


class Question(BaseModel):
    """One entry of a suite. turns: what the user says, message by message. Other keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    question_id: int | str
    category: NonEmpty
    turns: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]


def load_suite(path: Path) -> list[Question]:
    """All questions of a file; empty lines are skipped.

    Raises UserError where there is no such file, it holds no question, or a line is not one (with its
    number).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the suite {path}: {error.strerror}; give a JSONL file") from None
    except UnicodeDecodeError:
        raise UserError(f"the suite {path} is not UTF-8 text; give a JSONL file") from None
    questions = [
        _question(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not questions:
        raise UserError(f"the suite {path} is empty: it needs a line per question, {_FORM}")
    return questions


def round_robin(questions: Sequence[Question], limit: int | None = None) -> list[Question]:
    """The first `limit` questions, taken in turn from each category, so that few still show all kinds."""
    queues: dict[str, list[Question]] = {}
    for question in questions:
        queues.setdefault(question.category, []).append(question)
    longest = max(map(len, queues.values()), default=0)
    mixed = [queue[place] for place in range(longest) for queue in queues.values() if place < len(queue)]
    return mixed[:limit]


def categories(questions: Iterable[Question]) -> list[str]:
    """The names of the categories, in order of appearance."""
    return list(dict.fromkeys(question.category for question in questions))


_FORM = 'such as {"question_id": 1, "category": "qa", "turns": ["..."]}'


def _question(line: str, place: str) -> Question:
    try:
        return Question.model_validate(json.loads(line))
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"]) or "the line"
        what = "is missing" if fault["type"] == "missing" else f"is wrong ({fault['msg'].lower()})"
        raise UserError(f"{place}: {name} {what}; a question is an object {_FORM}") from None
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error}); mend or remove it") from None
