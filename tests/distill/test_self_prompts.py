from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.distill import DistillConfig, distill, self_prompts, writer
from medusa_decoding.distill.exclusion import Exclusion
from medusa_decoding.distill.prompts import read_prompts
from medusa_decoding.distill.self_prompts import SelfPrompter, own_prompts
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa, load
from tests.tiny import tiny_llama

WANTED = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def medusa(model: Path) -> Medusa:
    return load(str(model), heads=None, dtype="float64")


@pytest.fixture
def make_config(model: Path, tmp_path: Path) -> Any:
    def make(**fields: Any) -> DistillConfig:
        defaults = {
            "model": str(model), "out": tmp_path / "answers.jsonl", "self_prompts": WANTED,
            "dtype": "float64", "self_prompt_tokens": 60, "max_tokens": 5, "batch": 4, "hidden": False,
        }  # fmt: skip
        return DistillConfig.of(**{**defaults, **fields})

    return make


def texts_of(config: DistillConfig) -> dict[str, str]:
    lines = config.self_prompts_path.read_text(encoding="utf-8").splitlines()
    return {record["id"]: record["prompt"] for record in map(json.loads, lines)}


def dropped_by(config: DistillConfig) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for line in config.dropped_path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        reasons.setdefault(record["reason"].removeprefix("self-prompt: "), []).append(record["text"])
    return reasons


def write(config: DistillConfig, medusa: Medusa, others: list[str] | None = None) -> SelfPrompter:
    prompter = SelfPrompter(config, medusa, Exclusion(config.exclude), others or [])
    for _ in prompter.steps():
        pass
    prompter.flush()
    return prompter


def test_prompts_are_the_models_continuations_of_a_users_turn(make_config: Any, medusa: Medusa) -> None:
    config = make_config()
    write(config, medusa)
    assert (
        medusa.tokenizer.decode(medusa.tokenizer.user_opening(), skip_special=False) == "<|im_start|>user\n"
    )
    texts = texts_of(config)
    assert len(texts) == len(set(texts.values())) == WANTED
    assert all(any(letter.isalnum() for letter in text) for text in texts.values())
    # What is dropped, and only that, is missing among the numbers.
    last = max(int(key.removeprefix("self-")) for key in texts)
    assert last == WANTED + sum(len(found) for found in dropped_by(config).values())
    assert [str(prompt.key) for prompt in own_prompts(config)] == list(texts)
    assert [prompt.text for prompt in read_prompts(config.self_prompts_path)] == list(texts.values())


def test_batch_and_interruption_change_no_prompt(make_config: Any, medusa: Medusa, tmp_path: Path) -> None:
    one = make_config(batch=1, out=tmp_path / "one.jsonl")
    write(one, medusa)
    torn = make_config(batch=5, out=tmp_path / "torn.jsonl")
    prompter = SelfPrompter(torn, medusa, Exclusion([]), [])
    for _ in prompter.steps():
        if prompter.count >= 3:
            break
    prompter.flush()
    assert 3 <= len(texts_of(torn)) < WANTED
    with torn.self_prompts_path.open("a", encoding="utf-8") as file:
        file.write('{"id": "self-99", "pro')
    write(torn, medusa)
    assert texts_of(torn) == texts_of(one)


def test_seed_changes_the_prompts(make_config: Any, medusa: Medusa, tmp_path: Path) -> None:
    first, second = make_config(), make_config(seed=1, out=tmp_path / "second.jsonl")
    write(first, medusa)
    write(second, medusa)
    assert not set(texts_of(first).values()) & set(texts_of(second).values())


def test_given_and_excluded_prompts_are_dropped(make_config: Any, medusa: Medusa, tmp_path: Path) -> None:
    first = make_config()
    write(first, medusa)
    taken, banned = list(texts_of(first).values())[:2]
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps([{"prompt": banned}]), encoding="utf-8")
    config = make_config(out=tmp_path / "other.jsonl", exclude=suite)
    write(config, medusa, [taken.upper()])
    dropped = dropped_by(config)
    assert taken in dropped["duplicate"] and banned in dropped["excluded"]
    assert not {taken, banned} & set(texts_of(config).values())


class _Scripted:
    """A tokenizer that says what the test wants, whatever the model wrote."""

    def __init__(self, texts: Iterator[str], inner: Any) -> None:
        self._texts, self._inner = texts, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def decode(self, ids: list[int]) -> str:
        return next(self._texts)


def test_empty_texts_are_dropped(make_config: Any, medusa: Medusa) -> None:
    texts = iter(["?!", "  ", *[f"prompt {number}" for number in range(1000)]])
    scripted = Medusa(medusa.name, _Scripted(texts, medusa.tokenizer), medusa.engine, "f")  # type: ignore[arg-type]
    config = make_config(self_prompts=3)
    write(config, scripted)
    assert dropped_by(config)["empty"] == ["?!", ""]


def test_unfinished_and_looping_texts_are_dropped(
    make_config: Any, medusa: Medusa, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10_000))
    monkeypatch.setattr(self_prompts, "is_loop", lambda tokens: next(calls) == 0)
    config = make_config(self_prompts=3, self_prompt_tokens=30)
    write(config, medusa)
    dropped = dropped_by(config)
    assert len(dropped["loop"]) == 1
    # The byte model writes a token per byte, so an unfinished text is as long as was allowed.
    assert dropped["unfinished"]


def test_model_without_usable_prompts_is_named(
    make_config: Any, medusa: Medusa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_prompts, "PATIENCE", 6)
    with pytest.raises(UserError, match=r"no usable prompt in 6 attempts .*unfinished.*--prompts"):
        write(make_config(self_prompt_tokens=1), medusa)


def test_model_without_template_is_named(make_config: Any, tmp_path: Path) -> None:
    plain = str(tiny_llama(tmp_path / "plain", chat_template=None))
    with pytest.raises(UserError, match="no chat template"):
        distill(make_config(model=plain), progress=False)


def test_own_prompts_are_answered_and_a_kill_costs_nothing(
    make_config: Any, medusa: Medusa, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()

    def stop(self: writer.AnswerWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer.AnswerWriter, "flush_if_due", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(config, progress=False)
    texts = texts_of(config)
    report = distill(config, progress=False)
    assert texts_of(config) == texts
    records = [json.loads(line) for line in config.out.read_text(encoding="utf-8").splitlines()]
    loops = dropped_by(config).get("loop", [])
    assert len(records) + len(loops) == WANTED and report.answers == len(records)
    for record in records:
        assert texts[record["id"]] == record["prompt"]
        assert record["answer_ids"] == medusa.generate(record["prompt"], max_tokens=5).tokens
    counts = json.loads(config.record_path.read_text(encoding="utf-8"))["counts"]
    assert counts["prompts"] == WANTED and counts["dropped"]["self-prompt: unfinished"] > 0
    with pytest.raises(UserError, match=r"self_prompt_tokens 60, not 61"):
        distill(make_config(self_prompt_tokens=61), progress=False)
