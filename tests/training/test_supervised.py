from __future__ import annotations

from typing import Any

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.models import Tokenizer
from medusa_decoding.training.supervised import answers_of, conversation_of
from tests.tiny import tiny_tokenizer

END = 256
ASKED = {"role": "user", "content": "a"}
ANSWERED = {"role": "assistant", "content": "bc"}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASKED, ANSWERED]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWERED]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "bc"}]},
        {"conversations": [{"from": "gpt", "value": "no"}, {"from": "human", "value": "a"},
                           {"from": "gpt", "value": "bc"}]},
        {"conversations": [], "messages": [ASKED, ANSWERED]},
        {"instruction": "a", "input": "", "output": "bc"},
        {"instruction": "a", "output": "bc", "messages": None},
        {"prompt": "a", "completion": "bc"},
        {"prompt": "a", "response": "bc"},
        {"prompt": [ASKED], "completion": [ANSWERED]},
    ],
)  # fmt: skip
def test_all_forms_are_one_conversation(record: dict[str, Any]) -> None:
    assert conversation_of("here", record) == [ASKED, ANSWERED]


def test_alpacas_input_and_system_are_kept() -> None:
    record = {"instruction": "a", "input": "x", "output": "bc", "system": "kind"}
    assert conversation_of("here", record) == [
        {"role": "system", "content": "kind"},
        {"role": "user", "content": "a\n\nx"},
        ANSWERED,
    ]


def test_each_turn_is_an_answer_to_what_was_said_before(tokenizer: Tokenizer) -> None:
    """Loss falls on the assistant's tokens alone: the rest of the rendered conversation is prompt."""
    messages = [
        {"role": "system", "content": "s"}, ASKED, ANSWERED, {"role": "user", "content": "d"},
        {"role": "assistant", "content": "ef"}, {"role": "user", "content": "left open"},
    ]  # fmt: skip
    first, second = answers_of(tokenizer, "here", "t", {"messages": messages})
    assert (first.key, second.key, first.group, second.group) == ("t/2", "t/4", "t", "t")
    assert first.prompt_ids == tokenizer.chat(messages[:2])
    assert second.prompt_ids == tokenizer.chat(messages[:4])
    assert first.answer_ids == [*tokenizer.encode("bc"), END]
    assert second.answer_ids == [*tokenizer.encode("ef"), END]
    # Together they are the rendered conversation, token by token.
    whole = tokenizer.chat(messages[:5], add_generation_prompt=False)
    assert whole[: len(second.prompt_ids) + 3] == second.prompt_ids + second.answer_ids


def test_empty_answers_are_none(tokenizer: Tokenizer) -> None:
    assert list(answers_of(tokenizer, "here", "t", {"instruction": "a", "output": ""})) == []


def test_a_template_that_rewrites_finished_turns_still_gives_the_turn() -> None:
    """Here the opening of an unfinished turn is not the beginning of the finished one."""
    tokenizer = Tokenizer(
        tiny_tokenizer(
            "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
            "{% if add_generation_prompt %}<think>{% endif %}"
        )
    )
    (answer,) = answers_of(tokenizer, "here", "t", {"messages": [ASKED, ANSWERED]})
    assert tokenizer.decode(answer.prompt_ids) == "[a]<think>"
    assert tokenizer.decode(answer.answer_ids) == "bc"


def test_model_without_template_learns_from_prompt_and_completion() -> None:
    tokenizer = Tokenizer(tiny_tokenizer(None))
    (answer,) = answers_of(tokenizer, "here", "t", {"prompt": "a", "completion": "bc"})
    assert answer.prompt_ids == tokenizer.encode("a")
    assert answer.answer_ids == [*tokenizer.encode("bc"), END]
    with pytest.raises(UserError, match="here: the model has no chat template"):
        list(answers_of(tokenizer, "here", "t", {"messages": [ASKED, ANSWERED, ASKED, ANSWERED]}))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "a"}, "here is of no known form: it needs 'messages'"),
        ({"prompt": "a"}, "is a prompt without an answer: .*medusa distill"),
        ({"messages": []}, "is of no known form"),
        ({"messages": ["a"]}, "is of no known form"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "here: a message needs a known role"),
        ({"messages": [{"role": "user", "content": 3}]}, "not 'user' and int"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "not 'user' and list"),
    ],
)
def test_records_of_no_known_form_are_named(record: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        conversation_of("here", record)


def test_template_that_refuses_is_named_with_the_record() -> None:
    tokenizer = Tokenizer(tiny_tokenizer("{{ raise_exception('roles must alternate') }}"))
    with pytest.raises(UserError, match=r"file, record 3: .*roles must alternate.*; mend or remove"):
        list(answers_of(tokenizer, "file, record 3", "t", {"messages": [ASKED, ANSWERED]}))
