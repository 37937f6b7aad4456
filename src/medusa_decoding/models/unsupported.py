"""The error for models that the CPU engine cannot run, though others can."""

from __future__ import annotations

from medusa_decoding.errors import UserError


class Unsupported(UserError):
    """A model that has something which the CPU engine lacks.

    Attributes:
        reason: what that is, in a few words that fit into a sentence, such as "architecture 'gemma2'".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the CPU engine cannot run this model ({reason}); use --engine torch")
        self.reason = reason
