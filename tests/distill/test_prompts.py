from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.distill.prompts import (
    Prompt,
    check_names,
    gather_prompts,
    read_conversations,
    read_prompts,
    sampled,
)
from medusa_decoding.errors import UserError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_jsonl_of_prompts_keeps_ids(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "p.jsonl", {"id": 9, "prompt": "a"}, {"question_id": "q", "prompt": "b"}, {"prompt": "c"}
    )
    assert read_prompts(path) == [Prompt(9, [user("a")]), Prompt("q", [user("b")]), Prompt(3, [user("c")])]


def test_plain_text_has_a_prompt_a_line_numbered_by_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("one\n\n  two  \n", encoding="utf-8")
    assert read_prompts(path) == [Prompt(1, [user("one")]), Prompt(3, [user("two")])]


def test_turns_are_asked_one_after_the_other(tmp_path: Path) -> None:
    (prompt,) = read_prompts(jsonl(tmp_path / "p.jsonl", {"id": "x", "turns": ["a", "b", "c"]}))
    assert (prompt.name, prompt.text, prompt.messages) == ("x", "a", [user("a")])
    second = prompt.after("A")
    assert second is not None
    assert (second.name, second.text) == ("x/2", None)
    assert second.messages == [user("a"), assistant("A"), user("b")]
    third = second.after("B")
    assert third is not None and third.name == "x/3" and third.after("C") is None


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_sharegpt_takes_the_users_side(tmp_path: Path, suffix: str) -> None:
    said = [
        {"from": "system", "value": "be kind"},
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": "not used"},
        {"from": "human", "value": "b"},
    ]
    path = jsonl(
        tmp_path / f"p{suffix}", [{"conversations": said}] if suffix == ".json" else {"conversations": said}
    )
    (prompt,) = read_prompts(path)
    assert prompt == Prompt(1, [{"role": "system", "content": "be kind"}, user("a")], ["b"])
    assert prompt.text is None


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.txt"])
def test_the_mark_that_windows_editors_leave_is_no_text(tmp_path: Path, name: str) -> None:
    content = {"p.jsonl": '{"prompt": "a"}\n', "p.json": '[{"prompt": "a"}]', "p.txt": "a\n"}[name]
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert [prompt.text for prompt in read_prompts(tmp_path / name)] == ["a"]


def test_conversations_keep_the_assistants_side(tmp_path: Path) -> None:
    messages = [user("a"), assistant("A")]
    path = jsonl(tmp_path / "p.jsonl", {"id": "c", "messages": messages})
    assert list(read_conversations(path)) == [("c", messages)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", "", "holds no prompts"),
        ("p.txt", "\n \n", "holds no prompts"),
        ("p.json", "", "holds no prompts"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2 is not valid JSON"),
        ("p.jsonl", '{"prompt": "a"}\n{"question": "b"}\n', "record 2 is of no known form"),
        ("p.jsonl", '{"text": "a", "id": 3}\n', "it has 'text', 'id' and needs 'prompt', 'messages'"),
        ("p.jsonl", '{"prompt": " "}\n', "record 1 is of no known form"),
        ("p.csv", "prompt,answer\na,b\n", "save it as .jsonl"),
        ("p.jsonl", '{"turns": []}\n', "record 1 is of no known form"),
        ("p.jsonl", '{"messages": ["a"]}\n', "record 1 is of no known form"),
        ("p.jsonl", '{"messages": [{"role": "tool", "content": "a"}]}\n', "known role"),
        ("p.jsonl", '{"messages": [{"role": "user"}]}\n', "and a text"),
        ("p.jsonl", '{"messages": [{"role": "assistant", "content": "a"}]}\n', "no message of the user"),
        (
            "p.jsonl",
            '{"id": 1, "prompt": "a"}\n{"id": "1", "prompt": "b"}\n',
            "records 1 and 2 have",
        ),
        ("p.jsonl", '{"id": [1], "prompt": "a"}\n', "the id must be"),
        ("p.json", '{"prompt": "a"}', "must hold a list of objects"),
        ("p.json", '{"prompt": "a"}\n{"prompt": "b"}', "not valid JSON"),
    ],
)
def test_unusable_file_is_refused_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["p.txt", "p.json", "p.jsonl"])
def test_missing_and_binary_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_prompts(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompts(tmp_path / name)


def test_later_files_keys_bear_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("one\n", encoding="utf-8")
    prompts = gather_prompts([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert [prompt.key for prompt in prompts] == [1, 2, "b:1"]
    assert gather_prompts([tmp_path / "b.txt"])[0].key == 1


def test_several_answers_have_names_of_their_own() -> None:
    prompts = sampled([Prompt("x", [user("a")], ["b"]), Prompt(2, [user("c")])], 2)
    assert [prompt.name for prompt in prompts] == ["x", 2, "x#2", "2#2"]
    second = prompts[2].after("A")
    assert second is not None and (second.name, second.key) == ("x#2/2", "x")
    check_names(prompts)


@pytest.mark.parametrize(
    "keys", [("x", "x"), ("x", "x/2"), ("x", "x#2"), (1, "1")]
)  # turns and samples of one may bear another's name
def test_two_answers_of_one_id_are_refused(keys: tuple[int | str, int | str]) -> None:
    prompts = [Prompt(key, [user("a")], ["b"]) for key in keys]
    with pytest.raises(UserError, match=r"two prompts would have answers of the id"):
        check_names(sampled(prompts, 2))
