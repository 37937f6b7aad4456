"""Bounds within which a JSON schema is compiled, whose compiler follows references by recursion."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

MOST_LEVELS = 8000
"""Levels of a schema times places that it refers to."""
STACK = 64 * 2**20
"""Bytes. A level took up to 7.5 kB of it (llguidance 1.9 on x86-64): at 8 MB a thousand ended the process."""
PATIENCE = 20.0
"""Seconds. Few patterns that all must fit can take hours, and nothing stops the compiler."""
_SETTING = threading.Lock()


def levels_followed(schema: Any) -> int:
    """The most levels that a compiler descends if it follows each reference of a schema once."""
    depth, references, level = 0, set[str](), [schema]
    while level:
        depth += 1
        references.update(
            one["$ref"] for one in level if isinstance(one, dict) and isinstance(one.get("$ref"), str)
        )
        level = [item for one in level for item in _items(one)]
    return depth * (1 + len(references))


def with_deep_stack(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, run in a thread whose stack holds `MOST_LEVELS`.

    Raises TimeoutError after `PATIENCE`; the thread goes on then, in vain.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    with _SETTING:
        usual = threading.stack_size(STACK)
        try:
            thread = threading.Thread(target=run, name="medusa-grammar", daemon=True)
            thread.start()
        finally:
            threading.stack_size(usual)
    return future.result(PATIENCE)


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
