"""What loading a model from a folder or the Hub can run into, each in one line that names the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError

from medusa_decoding.errors import UserError

_UNREACHABLE = (
    "the Hugging Face Hub cannot be reached and {name} is not in the local cache; check the network"
)
_HUB_FAILURES: tuple[tuple[type[BaseException], str], ...] = (
    (GatedRepoError, "{name} is gated on the Hub; accept its terms there and run `hf auth login`"),
    (
        RepositoryNotFoundError,
        "there is no model {name} on the Hub; check the spelling (private ones need `hf auth login`)",
    ),
    (HFValidationError, "'{name}' is no Hub id; give owner/name"),
    (LocalEntryNotFoundError, _UNREACHABLE),
    (OfflineModeIsEnabled, _UNREACHABLE),
    (EntryNotFoundError, "{name} lacks a file that a language model needs ({error}); check that it is one"),
    (ConnectionError, _UNREACHABLE),
    (SafetensorError, "the weights of {name} are damaged ({error}); download them again"),
)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what transformers, safetensors and the Hub raise inside into a `UserError` about `name`."""
    try:
        yield
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise UserError(_explanation(name, error)) from error


def _explanation(name: str, error: BaseException) -> str:
    for cause in _chain(error):
        for kind, text in _HUB_FAILURES:
            if isinstance(cause, kind):
                return text.format(name=name, error=_one_line(cause))
        if type(cause).__module__.split(".")[0] in ("httpx", "httpcore", "requests"):
            return _UNREACHABLE.format(name=name)
    return f"{name} cannot be loaded: {_one_line(error)}; check that it is a complete causal language model"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
