"""What loading a model from a folder or the Hub can run into, each in one line that names the way out.

The libraries that define the errors are imported when there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from medusa_decoding.errors import UserError
from medusa_decoding.hub.failures import chain, explanation, is_of_the_network

_LONGEST_MESSAGE = 240
# Damaged configs make transformers fail in any of these ways.
_EXPECTED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    MemoryError,
    ArithmeticError,
)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what transformers, safetensors, peft and the Hub raise inside into a `UserError` about `name`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, _expected()) and not is_of_the_network(error):
            raise
        raise UserError(_explanation(name, error)) from error


def _expected() -> tuple[type[BaseException], ...]:
    from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
    from safetensors import SafetensorError

    return (*_EXPECTED, SafetensorError, StrictDataclassError, EntryNotFoundError)


def _by_kind() -> Iterator[tuple[type[BaseException], str]]:
    from safetensors import SafetensorError

    yield SafetensorError, "the weights of {name} are damaged ({error}); download them again"
    if "torch" in sys.modules:
        from torch import OutOfMemoryError

        yield OutOfMemoryError, "{name} does not fit on the device; use --quantization 4bit or --device cpu"
    yield MemoryError, "{name} does not fit in memory; use a smaller model, or --dtype bfloat16"


def _explanation(name: str, error: BaseException) -> str:
    for cause in chain(error):
        for kind, text in _by_kind():
            if isinstance(cause, kind):
                return text.format(name=name, error=_one_line(cause))
    if (of_the_hub := explanation(name, error)) is not None:
        return of_the_hub
    if "trust_remote_code" in str(error):
        return (
            f"{name} brings its own code, which is never run here; use a model that transformers itself knows"
        )
    return f"{name} cannot be loaded ({_one_line(error)}); check that it is a complete causal language model"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."
