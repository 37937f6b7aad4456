"""Supervised fine-tuning data as people have it: each of the assistant's turns is an answer to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medusa_decoding.distill.answers import Answer, JsonObject
from medusa_decoding.distill.prompts import Message
from medusa_decoding.distill.turns import turn_ids
from medusa_decoding.errors import UserError
from medusa_decoding.models import Tokenizer

# ShareGPT's speakers, in the words of chat templates.
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
}  # fmt: skip
_FORMS = (
    "'messages', 'conversations' (ShareGPT), 'instruction' and 'output' (Alpaca),"
    " or 'prompt' and 'completion'"
)


def answers_of(tokenizer: Tokenizer, where: str, key: str, record: JsonObject) -> Iterator[Answer]:
    """An answer for each of the assistant's turns: its prompt is the conversation before it.

    where: names the record in messages. key: the record's id; the turn at place p has the key `key/p`.
    Raises UserError naming the record where it is of no known form, or the chat template refuses it.
    """
    messages = conversation_of(where, record)
    if not tokenizer.has_chat_template:
        yield from _plain(tokenizer, where, key, messages)
        return
    for place, message in enumerate(messages):
        if message["role"] == "assistant" and message["content"]:
            try:
                prompt = tokenizer.chat(messages[:place])
                ids = turn_ids(tokenizer, messages[: place + 1], prompt)
            except UserError as error:
                raise UserError(f"{where}: {error}; mend or remove the record") from error
            if ids:
                yield Answer(f"{key}/{place}", prompt, ids, key)


def conversation_of(where: str, record: JsonObject) -> list[Message]:
    """The record as messages that begin with the system or the user; raises UserError as `answers_of`."""
    said = record.get("messages") or record.get("conversations")
    prompt, completion = record.get("prompt"), _first(record, "completion", "response")
    if said is None and isinstance(prompt, list) and isinstance(completion, list):
        said = [*prompt, *completion]
    if isinstance(said, list) and said and all(isinstance(one, dict) for one in said):
        messages = [_message(where, one) for one in said]
    elif isinstance(record.get("instruction"), str) and isinstance(record.get("output"), str):
        messages = _asked_and_answered(record, _alpaca(record), record["output"])
    elif isinstance(prompt, str) and isinstance(completion, str):
        messages = _asked_and_answered(record, prompt, completion)
    else:
        if isinstance(prompt, str):
            raise UserError(
                f"{where} is a prompt without an answer: let the model answer first, with"
                " `medusa distill MODEL --prompts FILE`"
            )
        raise UserError(f"{where} is of no known form: it needs {_FORMS}")
    # ShareGPT's conversations often begin in the middle, with an answer to nothing.
    while messages and messages[0]["role"] not in ("system", "user"):
        messages = messages[1:]
    return messages


def _alpaca(record: JsonObject) -> str:
    given = record.get("input")
    return (
        f"{record['instruction']}\n\n{given}"
        if isinstance(given, str) and given.strip()
        else str(record["instruction"])
    )


def _asked_and_answered(record: JsonObject, asked: str, answered: str) -> list[Message]:
    system = record.get("system")
    before = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return [*before, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _message(where: str, said: JsonObject) -> Message:
    speaker, content = _first(said, "role", "from"), _text(_first(said, "content", "value"))
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None or content is None:
        raise UserError(
            f"{where}: a message needs a known role (user, assistant, system, tool) and a text,"
            f" not {speaker!r} and {type(_first(said, 'content', 'value')).__name__};"
            " mend or remove the record"
        )
    return {"role": role, "content": content}


def _text(content: Any) -> str | None:
    """The text of a message, which may come in parts; None where there is anything else."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        return "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None


def _plain(tokenizer: Tokenizer, where: str, key: str, messages: list[Message]) -> Iterator[Answer]:
    """For a model without a chat template: one prompt as it stands, and what follows."""
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise UserError(
            f"{where}: the model has no chat template, so it can learn from one prompt and one answer a"
            " record; give such records, or a model for chat"
        )
    prompt = tokenizer.encode(str(messages[0]["content"]))
    ids = turn_ids(tokenizer, messages, prompt)
    if prompt and ids:
        yield Answer(f"{key}/1", prompt, ids, key)


def _first(record: JsonObject, *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)
