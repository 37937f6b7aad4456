"""The settings of a push."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medusa_decoding.distill.config import validated
from medusa_decoding.hub import HubId


class PushConfig(BaseModel):
    """Which heads go where on the Hub.

    heads: a folder, packaged heads or heads on the Hub. repo: `owner/name`. private: of a repository that is
    created (None: as its owner has it by default). revision: a branch, created if need be. base_model,
    license: for the model card's metadata, where they do not follow from the record of the training.
    replace_card: also where somebody edited the card on the Hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    heads: str
    repo: str
    private: bool | None = None
    revision: str | None = None
    commit_message: str = Field("Medusa heads", min_length=1)
    base_model: str | None = None
    license: str | None = None
    replace_card: bool = False

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        found = HubId.parse(self.repo)
        if found is None:
            raise ValueError(f"'{self.repo}' is no name for a repository on the Hub; give owner/name")
        if None not in (found.revision, self.revision) and found.revision != self.revision:
            raise ValueError(f"repo says {found.revision} and revision {self.revision}: leave one out")
        if self.base_model is not None and getattr(HubId.parse(self.base_model), "revision", "") is not None:
            raise ValueError(f"base_model '{self.base_model}' is no Hub id; give owner/name")
        return self

    @classmethod
    def of(cls, **fields: Any) -> PushConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "push")

    @property
    def hub_id(self) -> HubId:
        """The repository, and the branch if one was named."""
        found = HubId.parse(self.repo)
        assert found is not None
        return HubId(found.repo, self.revision or found.revision)
