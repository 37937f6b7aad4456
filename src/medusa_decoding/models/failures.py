"""What loading a model from a folder or the Hub can run into, each in one line that names the way out.

The libraries that define the errors are imported when there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from medusa_decoding.errors import UserError

_LONGEST_MESSAGE = 240
_UNREACHABLE = (
    "the Hugging Face Hub cannot be reached and {name} is neither a local folder nor in the local cache; "
    "check the name and the network"
)
_NETWORK_LIBRARIES = ("httpx", "httpcore", "requests", "urllib3")
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
        if not isinstance(error, _expected()):
            raise
        raise UserError(_explanation(name, error)) from error


def _expected() -> tuple[type[BaseException], ...]:
    from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
    from safetensors import SafetensorError

    return (*_EXPECTED, SafetensorError, StrictDataclassError, EntryNotFoundError)


def _by_kind() -> Iterator[tuple[type[BaseException], str]]:
    from huggingface_hub import errors
    from safetensors import SafetensorError

    yield errors.GatedRepoError, "{name} is gated; accept its terms on the Hub and run `hf auth login`"
    yield (
        errors.RepositoryNotFoundError,
        "there is no {name} on the Hub; check the spelling (private ones need `hf auth login`)",
    )
    yield errors.HFValidationError, "'{name}' is no Hub id; give owner/name"
    yield errors.LocalEntryNotFoundError, _UNREACHABLE
    yield errors.OfflineModeIsEnabled, _UNREACHABLE
    yield ConnectionError, _UNREACHABLE
    yield SafetensorError, "the weights of {name} are damaged ({error}); download them again"
    if "torch" in sys.modules:
        from torch import OutOfMemoryError

        yield OutOfMemoryError, "{name} does not fit on the device; use --quantization 4bit or --device cpu"
    yield MemoryError, "{name} does not fit in memory; use a smaller model, or --dtype bfloat16"


def _explanation(name: str, error: BaseException) -> str:
    for cause in _chain(error):
        for kind, text in _by_kind():
            if isinstance(cause, kind):
                return text.format(name=name, error=_one_line(cause))
        if type(cause).__module__.split(".")[0] in _NETWORK_LIBRARIES:
            return _UNREACHABLE.format(name=name)
    if "trust_remote_code" in str(error):
        return (
            f"{name} brings its own code, which is never run here; use a model that transformers itself knows"
        )
    return f"{name} cannot be loaded ({_one_line(error)}); check that it is a complete causal language model"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."
