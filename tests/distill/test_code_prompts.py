"""Prompts about the functions of Python's standard library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from medusa_decoding.distill.code_prompts import code_prompts
from medusa_decoding.distill.prompts import gather_prompts, read_prompts


def test_they_are_many_different_and_in_the_same_order() -> None:
    found = list(code_prompts())
    assert len(found) > 500
    assert len({name for name, _ in found}) == len({text for _, text in found}) == len(found)
    assert found == list(code_prompts()) != list(code_prompts(seed=1))
    assert sorted(name for name, _ in found) == sorted(name for name, _ in code_prompts(seed=1))


def test_a_function_is_a_signature_with_its_docstring() -> None:
    blocks = [text.split("```python\n")[1].split("```")[0] for _, text in code_prompts() if "```" in text]
    assert len(blocks) > 200
    for block in blocks[:100]:
        [function] = ast.parse(block).body
        assert isinstance(function, ast.FunctionDef)
        assert len(function.body) == 1 and ast.get_docstring(function)


def test_they_are_a_source_of_prompts_beside_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "mine.txt"
    other.write_text("Write a poem.\n", encoding="utf-8")
    prompts = gather_prompts([other, Path("python-library")])
    assert prompts[0].text == "Write a poem."
    assert [one.text for one in prompts[1:]] == [text for _, text in code_prompts()]
    # A file of that name is a file.
    Path("python-library").write_text("Another.\n", encoding="utf-8")
    assert [one.text for one in read_prompts(Path("python-library"))] == ["Another."]
