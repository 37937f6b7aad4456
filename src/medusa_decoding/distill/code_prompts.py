"""Prompts for models that write code: functions of Python's standard library, to be completed or written.

The library is on every machine that runs this package and its functions have docstrings. The answers are the
model's own: nothing but signatures and docstrings is taken. The same Python gives the same prompts.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

PYTHON_LIBRARY = "python-library"
"""The name under which `--prompts` takes these prompts."""

_FORMS = (
    "Complete this Python function. Answer with the whole function.\n\n```python\n{code}\n```",
    "Complete the following function.\n\n```python\n{code}\n```",
    "Write the body of this function:\n\n{code}",
    "Write a Python function `{name}` that does the following, with an example of its use.\n\n{purpose}",
    "Write a Python function for this task: {purpose}",
    "Write unit tests for a Python function with this description.\n\n```python\n{code}\n```",
    "Explain what this function is for, then implement it.\n\n```python\n{code}\n```",
)
_SHARES = (5, 3, 2, 3, 3, 1, 1)
"""How often each form is used, against the others."""

_LEAST_TEXT, _MOST_TEXT = 40, 700  # characters of a docstring that says enough and not too much
_SKIPPED = {"test", "idlelib", "lib2to3", "site-packages", "turtledemo", "pydoc_data", "__pycache__"}


def code_prompts(seed: int = 0) -> Iterator[tuple[str, str]]:
    """(name, prompt) of each function that is described well enough, in an order that `seed` decides."""
    found = sorted(_functions(Path(sysconfig.get_paths()["stdlib"])), key=lambda one: one[0])
    chooser = random.Random(seed)
    chooser.shuffle(found)
    for name, function in found:
        form = chooser.choices(_FORMS, _SHARES)[0]
        purpose = textwrap.dedent(ast.get_docstring(function) or "")
        yield name, form.format(code=_stub(function), name=function.name, purpose=purpose)


def _functions(library: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if _SKIPPED & set(place.parts):
            continue
        try:
            module = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        for function in ast.walk(module):
            if isinstance(function, ast.FunctionDef) and _tells_enough(function):
                text = ast.get_docstring(function) or ""
                if text not in seen:
                    seen.add(text)
                    yield f"{place.with_suffix('').as_posix()}:{function.name}:{function.lineno}", function


def _tells_enough(function: ast.FunctionDef) -> bool:
    """No method, which nobody could complete without its class, and a docstring of a usual length."""
    text, arguments = ast.get_docstring(function) or "", function.args.posonlyargs + function.args.args
    is_method = bool(arguments) and arguments[0].arg in ("self", "cls")
    return not is_method and not function.name.startswith("__") and _LEAST_TEXT <= len(text) <= _MOST_TEXT


def _stub(function: ast.FunctionDef) -> str:
    """Signature and docstring, as a reader would be given them."""
    arguments = ast.unparse(function.args)
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    text = textwrap.indent(ast.get_docstring(function) or "", "    ").strip()
    return f'def {function.name}({arguments}){returns}:\n    """{text}\n    """'
