"""Chat templates, rendered as transformers renders them, without it.

Templates come with models from anywhere, so they run in a sandbox and see plain data only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# Names under which a message's reasoning is passed; templates read the first.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render(
    template: str,
    messages: Iterable[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = False,
    **variables: Any,
) -> str:
    """The text of a conversation.

    Args:
        template: the Jinja source.
        messages: `{"role": ..., "content": ...}` each; values that are None count as absent.
        add_generation_prompt: end with the opening of the assistant's turn.
        variables: what else the template may ask for: special tokens by name, `tools`, `enable_thinking`, ...

    Raises:
        jinja2.TemplateError: the template is wrong, or refuses the conversation.
    """
    conversation = [_message(message) for message in messages]
    if not conversation:
        raise jinja2.TemplateError("it is empty")
    given = {"tools": None, "documents": None, **{key: _plain(value) for key, value in variables.items()}}
    return _compiled(template).render(
        messages=conversation, add_generation_prompt=add_generation_prompt, **given
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: _plain(value) for key, value in message.items() if value is not None}
    reasoning = next((known[key] for key in _REASONING if key in known), None)
    if reasoning is None:
        return known
    return {"thinking": reasoning, **known, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """JSON types only: methods of anything richer are none of a template's business."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = (_plain(item) for item in value)
        return list(items) if isinstance(value, list) else tuple(items)
    return f"<{type(value).__name__}>"


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_refuse, strftime_now=_now, dict=_make_dict, namespace=_PublicNamespace
    )
    return environment.from_string(template)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it stands for what it holds."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _PublicNamespace(Namespace):
    """Without names that begin with an underscore, which lead to Python's insides."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **values)
        for name in attributes:
            _check_public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"it may not store {name!r} in a namespace")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter writes `<` as `\\u003c`."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _make_dict(*args: Any, **values: Any) -> dict[Any, Any]:
    # Not the class itself, whose attributes a template could reach.
    return dict(*args, **values)
