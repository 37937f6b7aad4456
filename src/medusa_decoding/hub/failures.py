"""What the Hub and the way to it can answer, each in one line that names the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medusa_decoding.errors import UserError

NETWORK_LIBRARIES = ("httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3")
"""Whose errors mean that a server was not reached; `huggingface_hub` has changed from one to another."""
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_UNREACHABLE = (
    "the Hugging Face Hub cannot be reached and {name} is neither a local folder nor in the local cache; "
    "check the name and the network"
)
_IN_PART = "the local cache holds {name} only in part, and the Hub cannot be reached; check the network"
_BY_STATUS = {
    401: f"the Hub does not know who asks for {{name}}; {_LOG_IN}",
    403: "the Hub does not let this account have {name}; ask its owner, or log in as another one",
    429: "the Hub has had too many requests; try again later",
}
_LONGEST_ANSWER = 160


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what a download of `name` runs into inside into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = explanation(name, error)
        if said is None:
            raise
        raise UserError(said) from error


def explanation(name: str, error: BaseException) -> str | None:
    """Why the Hub does not give `name`, by an error or what caused it; None for errors of other kinds."""
    for cause in chain(error):
        for kind, text in _by_kind():
            if isinstance(cause, kind):
                return text.format(name=name)
        # 404 that is none of the kinds is a single file's, which says nothing of the repository.
        if (status := status_of(cause)) not in (None, 404):
            text = _BY_STATUS.get(status, f"the Hub answers {status} to {{name}}; try again later")
            return text.format(name=name)
        if is_of_the_network(cause):
            return _UNREACHABLE.format(name=name)
    return _UNREACHABLE.format(name=name) if _is_not_cached(error) else None


def status_of(error: BaseException) -> int | None:
    """The HTTP status with which the Hub refused; None for errors that are no answer of the Hub's."""
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def is_of_the_network(error: BaseException) -> bool:
    """Whether the Hub was not reached at all."""
    return isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in NETWORK_LIBRARIES


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """What the error says, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_ANSWER else f"{text[:_LONGEST_ANSWER]}..."


def _by_kind() -> Iterator[tuple[type[BaseException], str]]:
    from huggingface_hub import errors

    yield errors.GatedRepoError, "{name} is gated; accept its terms on the Hub and run `hf auth login`"
    yield (
        errors.RevisionNotFoundError,
        "the Hub has no such branch, tag or commit as {name} asks for; check what follows the @",
    )
    yield (
        errors.RepositoryNotFoundError,
        "there is no {name} on the Hub; check the spelling (private ones need `hf auth login`)",
    )
    yield errors.HFValidationError, "'{name}' is no Hub id; give owner/name"
    if hasattr(errors, "IncompleteSnapshotError"):
        yield errors.IncompleteSnapshotError, _IN_PART
    yield errors.OfflineModeIsEnabled, _UNREACHABLE


def _is_not_cached(error: BaseException) -> bool:
    """What is raised when the cache did not help; why it was asked says more, where that is known."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return any(isinstance(cause, LocalEntryNotFoundError) for cause in chain(error))
