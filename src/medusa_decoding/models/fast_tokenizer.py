"""The few methods of a transformers tokenizer that this package uses, on the `tokenizers` library alone.

Importing transformers takes a second or more, and its automatic classes import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from medusa_decoding.models.chat_template import render

Special = str | AddedToken


class FastTokenizer:
    """A tokenizer with its special tokens and chat template, by the names that transformers uses.

    Args:
        backend: text to ids; it is changed: truncation and padding go, special tokens that it lacks come.
        special: the named special tokens, such as `{"eos_token": "</s>"}`; an `AddedToken` says, too, how it
            is to be found in a text if the backend does not know it.
        extra_special: further special tokens.
        chat_template: a Jinja template, or several by name ("default", "tool_use").

    Attributes:
        backend_tokenizer: the backend.
        special_tokens_map: the named special tokens.
        chat_template: as given.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        special: Mapping[str, Special],
        extra_special: Sequence[Special] = (),
        chat_template: str | Mapping[str, str] | None = None,
    ) -> None:
        self.backend_tokenizer = backend
        self.special_tokens_map = {name: str(token) for name, token in special.items()}
        self.chat_template = chat_template
        tokens: dict[str, Special] = {}
        for token in (*special.values(), *extra_special):
            tokens.setdefault(str(token), token)
        self._special = list(tokens)
        backend.no_truncation()
        backend.no_padding()
        known = {token.content for token in self.added_tokens_decoder.values()}
        backend.add_tokens([_as_special(token) for text, token in tokens.items() if text not in known])

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
        """`{"input_ids": ...}` of a text."""
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens beside the vocabulary proper, by id."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the named and the further special tokens."""
        ids = (self.backend_tokenizer.token_to_id(token) for token in self._special)
        return [token_id for token_id in ids if token_id is not None]

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token that ends a text."""
        eos = self.special_tokens_map.get("eos_token")
        return None if eos is None else self.backend_tokenizer.token_to_id(eos)

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens too."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """The tokens of `ids`; None for an id without one."""
        return list(map(self.backend_tokenizer.id_to_token, ids))

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        **variables: Any,
    ) -> str:
        """The text of a conversation; special tokens are variables of the template by their names.

        Raises:
            jinja2.TemplateError: the template is wrong or refuses the conversation.
        """
        assert not tokenize
        return render(
            self._template(tools=bool(variables.get("tools"))),
            messages,
            add_generation_prompt=add_generation_prompt,
            **{**self.special_tokens_map, **variables},
        )

    def _template(self, *, tools: bool) -> str:
        if isinstance(self.chat_template, str):
            return self.chat_template
        several = self.chat_template or {}
        return several["tool_use" if tools and "tool_use" in several else "default"]


def _as_special(token: Special) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = True
    return token
