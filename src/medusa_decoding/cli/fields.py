"""Options from fields: of a configuration, so that a verb shows what that says and cannot drift, or of a
dataclass of options that several verbs share.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Verb = Callable[..., Any]


def options_of(
    config: type[BaseModel], helps: Mapping[str, str], *, all_optional: bool = False
) -> Callable[[Verb], Verb]:
    """Give a verb that takes `**fields` an option for each field of `config` that it does not name itself.

    helps: what the help says of each field. The field `model` becomes the argument. Fields that are not
    given are left out of the call, so that the configuration's own defaults (or a file's values, with
    `all_optional`) hold.
    """

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        named = {one.name for one in own}
        generated = [
            _parameter(name, field, helps[name], all_optional)
            for name, field in config.model_fields.items()
            if name not in named
        ]

        def call(**given: Any) -> Any:
            return verb(
                **{name: value for name, value in given.items() if name in named or value is not None}
            )

        return _with_parameters(call, verb, sorted([*generated, *own], key=lambda one: one.name != "model"))

    return decorate


def spread(verb: Verb) -> Verb:
    """Give a verb, whose arguments are all keywords, the fields of its dataclass arguments as options.

    The verb is called with the dataclasses.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(verb, eval_str=True).parameters.values():
        if dataclasses.is_dataclass(one.annotation):
            groups[one.name] = one.annotation
            parameters.extend(inspect.signature(groups[one.name], eval_str=True).parameters.values())
        else:
            parameters.append(one)

    def call(**given: Any) -> Any:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        return verb(**given, **made)

    return _with_parameters(call, verb, parameters)


def _with_parameters(call: Verb, verb: Verb, parameters: Sequence[inspect.Parameter]) -> Verb:
    """`call` with the name and help of `verb`, and with `parameters`, as keywords, for typer to see."""
    # `**fields` stays what it is, for `options_of` to fill.
    parameters = [
        one if one.kind is inspect.Parameter.VAR_KEYWORD else one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for one in parameters
    ]
    call.__name__, call.__doc__ = verb.__name__, verb.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _parameter(name: str, field: FieldInfo, text: str, optional: bool) -> inspect.Parameter:
    required = field.is_required() and not optional
    kind = _plain_type(field.annotation)
    if name == "model":
        info: Any = typer.Argument(metavar="MODEL", help=text, show_default=False)
    else:
        flag = name.replace("_", "-")
        flags = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        shown = "" if default is None or default == () else f" [default: {_shown(default)}]"
        info = typer.Option(
            flags, help=f"{text}{shown}", show_default=False, metavar=_metavar(field.annotation)
        )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind if required else kind | None, info],
    )


def _plain_type(annotation: Any) -> Any:
    """The type the command line reads; of a union that it cannot read, text, which the configuration then
    reads. A tuple is an option that may be given several times.
    """
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return _plain_type(kinds[0]) if len(kinds) == 1 else str
    if get_origin(annotation) is tuple:
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    return annotation


def _metavar(annotation: Any) -> str | None:
    """The placeholder in the help; None leaves it to typer, which lists the choices of a literal."""
    kind = _plain_type(annotation)
    if get_origin(kind) is Literal or kind is bool:
        return None
    return "|".join(_placeholders(annotation))


def _placeholders(annotation: Any) -> list[str]:
    """A placeholder for each kind of value, the values themselves of a literal."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return list(parts)
    if origin in (Union, UnionType):
        return [one for part in parts if part is not NoneType for one in _placeholders(part)]
    if origin in (tuple, Annotated):
        return _placeholders(parts[0])
    return [{int: "N", float: "X", Path: "PATH"}.get(annotation, "TEXT")]


def _shown(default: Any) -> str:
    return (
        {True: "on", False: "off"}.get(default, str(default)) if isinstance(default, bool) else str(default)
    )
