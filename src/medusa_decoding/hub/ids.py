"""Names of repositories on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[^\s@]+))?")


@dataclass(frozen=True)
class HubId:
    """A repository, `owner/name`, and what of it: a branch, tag or commit (None: its main branch)."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """What `owner/name` or `owner/name@revision` says; None for any other text."""
        found = _FORM.fullmatch(text)
        return cls(found["repo"], found["revision"]) if found and ".." not in found["repo"] else None

    @property
    def owner(self) -> str:
        """The user or organization that the repository belongs to."""
        return self.repo.split("/")[0]

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"
