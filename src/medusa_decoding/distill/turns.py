"""The token ids of an assistant's turn that exists as text only."""

from __future__ import annotations

from medusa_decoding.distill.prompts import Message
from medusa_decoding.models import Tokenizer


def turn_ids(
    tokenizer: Tokenizer, messages: list[Message], prompt_ids: list[int], *, ended: bool = True
) -> list[int]:
    """The last message's tokens as the model would write them after `prompt_ids`.

    messages: a conversation whose last message is the assistant's. ended: with the token that ends the turn.
    """
    if tokenizer.has_chat_template:
        ids = _rendered(tokenizer, messages, prompt_ids)
    else:
        ids = tokenizer.encode(str(messages[-1]["content"]), special=False)
        end = tokenizer.tokenizer.eos_token_id
        ids = ids if end is None else [*ids, end]
    ends = [place for place, token in enumerate(ids) if token in tokenizer.eos_ids]
    return ids[: ends[0] + ended] if ends else ids


def _rendered(tokenizer: Tokenizer, messages: list[Message], prompt_ids: list[int]) -> list[int]:
    whole = tokenizer.chat(messages, add_generation_prompt=False)
    if whole[: len(prompt_ids)] == prompt_ids:
        return whole[len(prompt_ids) :]
    # Some templates write finished turns otherwise than open ones (thoughts are left out, say).
    return tokenizer.encode(str(messages[-1]["content"]), special=False)
