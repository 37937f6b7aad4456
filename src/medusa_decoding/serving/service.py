"""What the routes share: the model, the scheduler, the grammars."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from medusa_decoding.serving.errors import ApiError
from medusa_decoding.serving.grammar import Grammars
from medusa_decoding.serving.jobs import Jobs
from medusa_decoding.serving.served import Served


@dataclass(frozen=True)
class Service:
    """One model behind the API. most_choices: texts that one request may ask for."""

    served: Served
    jobs: Jobs
    grammars: Grammars
    most_choices: int

    def check_count(self, texts: int) -> None:
        """Raises ApiError where a request asks for more texts than could ever wait."""
        if texts > self.most_choices:
            message = f"{texts} texts in one request: at most {self.most_choices} are written here"
            raise ApiError(400, message, param="n", code="too_many_choices")

    @staticmethod
    def seed() -> int:
        """A seed for a request that names none."""
        return secrets.randbits(32)
