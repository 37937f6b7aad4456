from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import jinja2
import numpy as np
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from medusa_decoding.models.chat_template import render

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "héllo"},
    {"role": "assistant", "content": "Hi", "reasoning": "greet", "tool_calls": None},
]


class Mood(str, enum.Enum):  # noqa: UP042
    GOOD = "good"


class Level(enum.IntEnum):
    HIGH = 2


EACH, DONE = "{% for m in messages %}", "{% endfor %}"
TEMPLATES = {
    "blocks are trimmed": f"  {EACH}\n    {{{{ m.role }}}}: {{{{ m['content'] }}}}\n  {DONE}\nend\n",
    "loop controls": EACH + "{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}" + DONE,
    "json": "{{ messages | tojson }}{{ tools | tojson(indent=2) }}",
    "sorted json": "{{ {'b': '<é>', 'a': 1} | tojson(sort_keys=true, separators=('.', '=')) }}",
    "generation": EACH + "{% generation %} {{ m.content }}{% endgeneration %}!" + DONE,
    "namespace": "{% set n = namespace(a=1, self=2) %}"
    + EACH
    + "{% set n.a = n.a + 1 %}"
    + DONE
    + "{{ n.a }}",
    "dictionary": "{{ dict(a=1)['a'] }}{{ dict({'b': 2}) }}",
    "variables": "{{ bos_token }}{{ mood }}{{ nothing }}{{ tools is none }}{{ documents is defined }}",
    "reasoning": "{{ messages[2].reasoning_content }}{{ messages[2].thinking }}",
    "absent": "{{ 'tool_calls' in messages[2] }}{{ 'thinking' in messages[0] }}",
    "prompt": "{{ messages[0].role }}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "plain data": "{{ array }}{{ number + 1 }}{{ nested }}{{ good }}{{ level + 1 }}",
}
VARIABLES: dict[str, Any] = {
    "bos_token": "<s>",
    "mood": "<fine>",
    "tools": [{"type": "function", "name": "<ä>"}],
    "array": np.zeros(2),
    "number": 2,
    "nested": {"list": (1, None)},
    "good": Mood.GOOD,
    "level": Level.HIGH,
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [True, False])
def test_the_text_is_that_of_transformers(name: str, prompt: bool) -> None:
    variables = VARIABLES if name != "variables" else {"bos_token": "<s>", "mood": "fine"}
    # Its callers leave out what is None.
    messages = [{key: value for key, value in message.items() if value is not None} for message in MESSAGES]
    (expected,), _ = render_jinja_template(
        [messages], chat_template=TEMPLATES[name], add_generation_prompt=prompt, **variables
    )
    assert render(TEMPLATES[name], MESSAGES, add_generation_prompt=prompt, **variables) == expected


def test_the_day_is_todays() -> None:
    assert render("{{ strftime_now('%Y') }}", MESSAGES) == str(datetime.now().year)


def test_messages_stay_as_they_are() -> None:
    before = [dict(message) for message in MESSAGES]
    render(TEMPLATES["reasoning"], MESSAGES)
    assert before == MESSAGES


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "not safely callable|unsafe"),
        ("{% set n = namespace(__class__=1) %}", "may not store '__class__'"),
        ("{% set n = namespace() %}{% set n.__x = 1 %}", "may not store '__x'"),
        ("{{ dict.__subclasses__() }}", "has no attribute|unsafe"),
    ],
)
def test_what_a_template_may_not_do_is_an_error(template: str, message: str) -> None:
    with pytest.raises(jinja2.TemplateError, match=message):
        render(template, MESSAGES)


def test_an_empty_conversation_is_an_error() -> None:
    with pytest.raises(jinja2.TemplateError, match="empty"):
        render("x", [])
