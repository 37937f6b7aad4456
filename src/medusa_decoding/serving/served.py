"""The model as the API knows it: its names, its words, its bounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from medusa_decoding.decoding import Statistics
from medusa_decoding.errors import UserError
from medusa_decoding.serving.errors import ApiError
from medusa_decoding.serving.tools import ToolForm, tool_form

if TYPE_CHECKING:
    from medusa_decoding.generation import Medusa
    from medusa_decoding.models import Tokenizer


@dataclass(frozen=True)
class Served:
    """A model's outside.

    name: by which requests ask for it. vocabulary_size, context_length: the engine's, or what less is served.
    heads: how many there are. lookup: whether texts are looked up. lossless: whether texts are the base
    model's own.
    """

    name: str
    tokenizer: Tokenizer
    vocabulary_size: int
    context_length: int
    heads: int = 0
    lookup: bool = False
    lossless: bool = True
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, medusa: Medusa, context: int, name: str | None = None) -> Served:
        """What is served of a loaded model."""
        return cls(
            # A path is nobody's business outside.
            name or PurePath(medusa.name).name,
            medusa.tokenizer,
            medusa.engine.vocabulary_size,
            context,
            0 if medusa.heads is None else medusa.heads.config.num_heads,
            medusa.lookup is not None,
            not medusa.drafts or medusa.acceptance is None or medusa.acceptance.lossless,
        )

    def check_name(self, asked: str | None) -> None:
        """Raises ApiError where a request asks for another model."""
        if asked is not None and asked != self.name:
            message = f"there is no such model here: ask for '{self.name}'"
            raise ApiError(404, message, param="model", code="model_not_found")

    @cached_property
    def tools(self) -> ToolForm | None:
        """How the model calls tools; None where its chat template defines no form that is known here."""
        return tool_form(self.template)

    @property
    def template(self) -> str:
        """The source of the chat template, all of them if there are several; empty without one."""
        found = self.tokenizer.tokenizer.chat_template or ""
        return found if isinstance(found, str) else "\n".join(found.values())

    def chat(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        """A conversation's token ids; raises ApiError where it has no place in the template or context."""
        if not self.tokenizer.has_chat_template:
            message = "this model has no chat template: use /v1/completions"
            raise ApiError(400, message, param="messages", code="no_chat_template")
        variables: dict[str, Any] = {"tools": list(tools)} if tools else {}
        try:
            return self._fitting(self.tokenizer.chat(list(messages), **variables), "messages")
        except UserError as error:
            raise ApiError(400, str(error), param="messages", code="invalid_messages") from None

    def text(self, prompt: str | list[int]) -> list[int]:
        """A prompt's token ids; raises ApiError where there are none, or too many."""
        if isinstance(prompt, str):
            return self._fitting(self.tokenizer.encode(prompt), "prompt")
        return self._fitting(prompt, "prompt")

    def room(self, prompt: Sequence[int], wanted: int | None) -> int:
        """How many tokens may follow a prompt."""
        left = self.context_length - len(prompt)
        return left if wanted is None else min(wanted, left)

    def check_tokens(self, ids: Sequence[int], param: str) -> None:
        """Raises ApiError where one of the ids is none of this model's."""
        for token in ids:
            if not 0 <= token < self.vocabulary_size:
                message = (
                    f"{token} is not a token id of this model: they go from 0 to {self.vocabulary_size - 1}"
                )
                raise ApiError(400, message, param=param, code="invalid_token")

    def _fitting(self, ids: list[int], param: str) -> list[int]:
        self.check_tokens(ids, param)
        if not ids:
            raise ApiError(
                400, "the prompt is empty: give at least one character", param=param, code="empty_prompt"
            )
        if len(ids) >= self.context_length:
            message = f"the prompt has {len(ids)} tokens, the context is {self.context_length}: shorten it"
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return ids

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for; of special tokens, which stand for nothing, the name."""
        return (
            self.tokenizer.token_bytes(token) or self.tokenizer.decode([token], skip_special=False).encode()
        )

    def token_text(self, token: int) -> str:
        """The same as text; bytes that are no whole characters become U+FFFD."""
        return self.token_bytes(token).decode(errors="replace")

    def figures(self, statistics: Statistics) -> dict[str, Any]:
        """The `medusa` object of an answer: what drafting brought."""
        heads = [*statistics.accepted, *[0] * self.heads][: max(self.heads, len(statistics.accepted))]
        accepted = {str(head): count for head, count in enumerate(heads, 1)}
        return {
            "acceleration_rate": round(statistics.acceleration_rate, 4),
            "steps": statistics.steps,
            "tokens": statistics.tokens,
            "accepted_per_source": {**accepted, "lookup": statistics.looked_up_accepted},
            "tokens_per_second": round(statistics.tokens_per_second, 2),
            "lossless": self.lossless,
        }

    def description(self) -> dict[str, Any]:
        """The model's entry in `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "medusa",
            "max_model_len": self.context_length,
            "medusa": {"heads": self.heads, "lookup": self.lookup, "lossless": self.lossless},
        }
