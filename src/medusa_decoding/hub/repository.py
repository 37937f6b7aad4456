"""A repository on the Hub that is written to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_decoding.errors import UserError
from medusa_decoding.hub.download import quietly
from medusa_decoding.hub.failures import chain, is_of_the_network, one_line, status_of
from medusa_decoding.hub.ids import HubId

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token that may write"


@dataclass(frozen=True)
class Commit:
    """What has become of a push. url: of the commit. is_new: False where all was there already."""

    url: str
    is_new: bool


class Repository:
    """A model repository of the logged-in user's, or one that they may write to.

    All methods raise UserError where the Hub cannot be reached or refuses.
    """

    def __init__(self, api: HfApi, hub_id: HubId, *, progress: bool) -> None:
        self._api = api
        self._hub_id = hub_id
        self._progress = progress

    @classmethod
    def opened(cls, hub_id: HubId, *, private: bool | None, progress: bool) -> Repository:
        """The repository; it and the branch are created if they are not there. private: of a new one."""
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import RevisionNotFoundError

        if get_token() is None:
            raise UserError(f"nobody is logged in to the Hub: {_LOG_IN}")
        api = HfApi()
        found = cls(api, hub_id, progress=progress)
        with found._explained():
            api.create_repo(hub_id.repo, private=private, exist_ok=True)
            if hub_id.revision is not None:
                try:
                    api.model_info(hub_id.repo, revision=hub_id.revision)
                except RevisionNotFoundError:
                    api.create_branch(hub_id.repo, branch=hub_id.revision, exist_ok=True)
        return found

    def files(self) -> list[str]:
        """Names of its files."""
        with self._explained():
            info = self._api.model_info(self._hub_id.repo, revision=self._hub_id.revision)
        return [one.rfilename for one in info.siblings or []]

    def text(self, name: str) -> str:
        """The content of one of its files; nothing of it goes into the local cache."""
        with self._explained(), tempfile.TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(
                self._hub_id.repo, name, revision=self._hub_id.revision, local_dir=folder
            )
            return Path(path).read_text(encoding="utf-8")

    def licence_of(self, repo: str) -> str | None:
        """What the model card of another repository says its licence is; None where it cannot be known."""
        try:
            with quietly(progress=False):
                card = self._api.model_info(repo).card_data
        except Exception:
            # The licence of somebody else's model is no reason not to push: gated, renamed, whatever it is.
            return None
        found = None if card is None else card.get("license")
        return found if isinstance(found, str) else None

    def commit(self, files: Mapping[str, Path | bytes], remove: Iterable[str], message: str) -> Commit:
        """Write files (name → where it is, or its content) and remove others, in one commit or not at all."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        repo, revision = self._hub_id.repo, self._hub_id.revision
        with self._explained():
            before = self._api.model_info(repo, revision=revision).sha
            done = self._api.create_commit(
                repo,
                [
                    *(CommitOperationAdd(name, content) for name, content in files.items()),
                    *(CommitOperationDelete(name) for name in remove),
                ],
                commit_message=message,
                revision=revision,
            )
        return Commit(done.commit_url, done.oid != before)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with quietly(progress=self._progress):
                yield
        except UserError:
            raise
        except Exception as error:
            if (said := self._explanation(error)) is None:
                raise
            raise UserError(said) from error

    def _explanation(self, error: BaseException) -> str | None:
        from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

        for cause in chain(error):
            if isinstance(cause, HFValidationError):
                return f"'{self._hub_id}' is no name for a repository ({one_line(cause)}); give owner/name"
            if isinstance(cause, OfflineModeIsEnabled):
                return "HF_HUB_OFFLINE is set: unset it to push"
            if (status := status_of(cause)) == 400:
                break
            if status is not None:
                return self._refusal(status, cause)
            if is_of_the_network(cause):
                return "the Hugging Face Hub cannot be reached, and nothing was pushed; check the network"
        if isinstance(error, ValueError):
            return f"the Hub does not take this ({one_line(error)}); nothing was pushed"
        return None

    def _refusal(self, status: int, error: BaseException) -> str:
        repo = self._hub_id.repo
        if status == 401:
            return f"the Hub does not accept the token: {_LOG_IN}"
        if status in (403, 404):
            mine = self._own_name()
            way_out = (
                f"push to {mine}/{repo.split('/')[1]}" if mine not in (None, self._hub_id.owner) else _LOG_IN
            )
            return f"this account may not write to {repo} ({status}); {way_out}"
        return f"the Hub answers {status} to {repo} ({one_line(error)}); nothing was pushed, try again later"

    def _own_name(self) -> str | None:
        try:
            return str(self._api.whoami()["name"])
        except Exception:
            # Only to say more of an error that is reported in any case.
            return None
