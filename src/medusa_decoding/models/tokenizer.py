"""A base model's tokenizer: text to ids, ids to text, and a stream of ids to a stream of whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2

from medusa_decoding.errors import UserError
from medusa_decoding.models.pieces import spelling_of

# What chat models close their turn with, besides the end-of-sequence token that their config names.
_TURN_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<|end_of_turn|>", "<|eot|>", "<|return|>",
)  # fmt: skip


class Tokenizer:
    """Wraps a tokenizer; decoding goes token by token through bytes, so that it can be streamed.

    Args:
        tokenizer: a `FastTokenizer` or one of transformers.
        eos_ids: end tokens that the model's config and generation config name; those that the tokenizer
            declares are added.
    """

    def __init__(self, tokenizer: Any, eos_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._spelling = spelling_of(tokenizer)
        # Some vocabularies have holes, so their length is not the highest id.
        size = max(tokenizer.get_vocab().values()) + 1
        self._tokens: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(size)))
        self._special_ids, self._literal = _added_tokens(tokenizer)
        self._bytes: dict[int, bytes] = {}
        self.eos_ids: frozenset[int] = frozenset({*eos_ids, *self._declared_ends()})

    @property
    def vocabulary_size(self) -> int:
        """One more than the highest id of any token; the model's own table may be longer."""
        return len(self._tokens)

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are no text: ends, openings of turns, padding."""
        return self._special_ids

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` works."""
        return bool(self.tokenizer.chat_template)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of `text`; `special` adds what the model wants around a sequence, such as its first
        token.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        stream = self.stream(skip_special=skip_special)
        return stream.push(ids) + stream.flush()

    def chat(
        self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = True, **template_arguments: Any
    ) -> list[int]:
        """The ids of a conversation, in the model's own chat template.

        Args:
            messages: `{"role": ..., "content": ...}` each.
            add_generation_prompt: end with the opening of the assistant's turn.
            template_arguments: variables of the template, such as `enable_thinking`.

        Raises:
            UserError: the model has no chat template, or its template refuses the conversation.
        """
        text = self._rendered(messages, add_generation_prompt=add_generation_prompt, **template_arguments)
        return self.encode(text, special=False)

    def user_opening(self) -> list[int]:
        """The ids of an empty conversation up to where the user's words begin: what a chat model continues
        with a prompt of its own making (Magpie, arXiv:2406.08464, section 2.1).

        Raises:
            UserError: the model has no chat template, or its template hides the user's words.
        """
        words = "ThisIsWhatTheUserSays"
        opening, found, _ = self._rendered([{"role": "user", "content": words}]).partition(words)
        if not found:
            raise UserError("the model's chat template does not show a user's words as they are")
        # Some vocabularies write a space with the word that follows it.
        return self.encode(opening.rstrip(" "), special=False)

    def _rendered(self, messages: list[dict[str, Any]], **template_arguments: Any) -> str:
        if not self.has_chat_template:
            raise UserError("this model has no chat template; use --raw to continue the plain text")
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, **template_arguments)
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            raise UserError(f"the model's chat template refuses this conversation: {error}") from error
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; none for special tokens and for ids without a token."""
        if token_id in self._special_ids:
            return b""
        return self._literal_bytes(token_id)

    def stream(self, *, skip_special: bool = True) -> TokenStream:
        """A decoder for ids that arrive one by one."""
        return TokenStream(self, skip_special=skip_special)

    def _literal_bytes(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._spelled(token_id)
        return known

    def _spelled(self, token_id: int) -> bytes:
        if token_id in self._literal:
            return self._spelling.of_added(self._literal[token_id])
        token = self._tokens[token_id] if 0 <= token_id < len(self._tokens) else None
        return b"" if token is None else self._spelling.of_token(token)

    def _declared_ends(self) -> set[int]:
        ends = {token_id for token_id, text in self._literal.items() if text in _TURN_ENDS}
        eos = self.tokenizer.eos_token_id
        return ends if eos is None else ends | {eos}


class TokenStream:
    """Ids in, whole characters out, in time linear in the number of ids.

    What all `push` calls and the final `flush` return, joined, equals `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._bytes_of = tokenizer.token_bytes if skip_special else tokenizer._literal_bytes
        self._drop_space = tokenizer._spelling.drops_first_space
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> str:
        """The characters that `ids` complete; a character's first bytes wait for its last."""
        data = b"".join(self._bytes_of(token_id) for token_id in ids)
        if data and self._drop_space:
            data = data.removeprefix(b" ")
            self._drop_space = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)


def _added_tokens(tokenizer: Any) -> tuple[frozenset[int], dict[int, str]]:
    """Ids of special tokens, and the literal text of every added token."""
    added = tokenizer.added_tokens_decoder
    special = {token_id for token_id, token in added.items() if token.special} | set(
        tokenizer.all_special_ids
    )
    return frozenset(special), {token_id: str(token.content) for token_id, token in added.items()}
