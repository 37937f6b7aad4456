"""Calls of tools: told to the model by its template, read from its text."""

from __future__ import annotations

import json

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from medusa_decoding.serving.tools import HERMES, Call, CallReader, tool_form
from tests.serving.conftest import Server
from tests.tiny import CHAT_TEMPLATE

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place",
            "parameters": {
                "type": "object",
                "properties": {"place": {"enum": ["Oslo", "Rome"]}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }
]
ASK = [{"role": "user", "content": "Weather in Oslo?"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>'


def read(pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """All that is said, and all that is called."""
    reader = CallReader(HERMES)
    found = [one for piece in pieces for one in reader.push(piece)] + list(reader.finish())
    said = "".join(one for one in found if isinstance(one, str))
    return said, [(one.name, one.arguments) for one in found if isinstance(one, Call)]


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("Nothing to call.", "Nothing to call.", []),
        (CALL, "", [("weather", '{"place": "Oslo"}')]),
        (f"Let me see.\n{CALL}\n{CALL}", "Let me see.\n", [("weather", '{"place": "Oslo"}')] * 2),
        (CALL.removesuffix("</tool_call>"), "", [("weather", '{"place": "Oslo"}')]),
        ("<tool_call>oops</tool_call> so", "<tool_call>oops</tool_call> so", []),
        ('<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ("a <tool_call", "a <tool_call", []),
        ('<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
        ("1 < 2 <tool", "1 < 2 <tool", []),
    ],
)
@given(data=st.data())
def test_calls_are_found_however_the_text_is_cut(
    text: str, said: str, calls: list, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == (said, calls)


def test_text_is_not_held_back_for_nothing() -> None:
    reader = CallReader(HERMES)
    assert list(reader.push("1 <")) == ["1 "]
    assert list(reader.push(" 2 ")) == ["< 2 "]


def test_a_template_without_a_known_form_has_none() -> None:
    assert tool_form(CHAT_TEMPLATE) is None
    assert tool_form("{% if tools %}[TOOL_CALLS]{% endif %}") is None


def test_a_call_is_answered_as_one(client: OpenAI, server: Server) -> None:
    server.jobs.reply = CALL
    choice = client.chat.completions.create(model="tiny", messages=ASK, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == (
        "function",
        "weather",
        '{"place": "Oslo"}',
    )
    prompt = server.served.tokenizer.decode(server.jobs.submitted[0].prompt, skip_special=False)
    assert '"description": "The weather of a place"' in prompt

    result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
    server.jobs.reply = "Cold."
    again = [*ASK, choice.message.model_dump(), result]
    assert (
        client.chat.completions.create(model="tiny", messages=again, tools=TOOLS).choices[0].message.content
        == "Cold."
    )
    prompt = server.served.tokenizer.decode(server.jobs.submitted[1].prompt, skip_special=False)
    assert '<tool_call>{"name": "weather", "arguments": {"place": "Oslo"}}</tool_call>' in prompt
    assert "<|im_start|>tool\n12 degrees<|im_end|>" in prompt


def test_a_call_is_streamed_whole(client: OpenAI, server: Server) -> None:
    server.jobs.reply = f"Let me see.{CALL}"
    chunks = list(client.chat.completions.create(model="tiny", messages=ASK, tools=TOOLS, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Let me see."
    (call,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert (call.index, call.function.name, call.function.arguments) == (0, "weather", '{"place": "Oslo"}')
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_can_be_required(client: OpenAI, server: Server, choice) -> None:
    server.jobs.random = True
    for seed in range(5):
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, tools=TOOLS, tool_choice=choice, seed=seed
        ).choices[0]
        (call,) = answer.message.tool_calls
        assert json.loads(call.function.arguments)["place"] in ("Oslo", "Rome")
        assert answer.finish_reason == "tool_calls"


def test_tools_may_be_there_unused(client: OpenAI, server: Server) -> None:
    server.jobs.reply = CALL
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, tools=TOOLS, tool_choice="none"
    ).choices[0]
    assert (answer.message.content, answer.message.tool_calls) == (CALL, None)
    prompt = server.served.tokenizer.decode(server.jobs.submitted[0].prompt, skip_special=False)
    assert "weather of a place" not in prompt


def test_tools_that_do_not_exist_cannot_be_chosen(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no tool is named clock"):
        client.chat.completions.create(
            model="tiny",
            messages=ASK,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "clock"}},
        )
