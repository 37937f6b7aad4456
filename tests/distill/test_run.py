from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medusa_decoding.distill import DistillConfig, distill, writer
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa, load
from tests.tiny import tiny_llama

PROMPTS = ["a", "hello there", "bb", "what is it?", "x y z", "1 2 3 4 5 6 7 8", "q"]
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def medusa(model: Path) -> Medusa:
    return load(str(model), heads=None, dtype="float64")


@pytest.fixture
def make_config(model: Path, tmp_path: Path) -> Any:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"id": f"p{place}", "prompt": text}) + "\n" for place, text in enumerate(PROMPTS)),
        encoding="utf-8",
    )
    defaults = {
        "model": str(model), "prompts": prompts, "out": tmp_path / "data" / "answers.jsonl",
        "max_tokens": MAX_TOKENS, "batch": 3, "dtype": "float64",
    }  # fmt: skip

    def make(**fields: Any) -> DistillConfig:
        return DistillConfig.of(**{**defaults, **fields})

    return make


def records_of(config: DistillConfig) -> dict[str, Any]:
    lines = config.out.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["id"] for record in records}) == len(records), "an answer stands in the file twice"
    return {record["id"]: record for record in records}


def check_hidden(config: DistillConfig, medusa: Medusa) -> None:
    """Each answer's states are those that a plain forward pass has where it decides the answer's tokens."""
    cache = HiddenCache(config.cache_folder, medusa.fingerprint)
    for key, record in records_of(config).items():
        ids = record["prompt_ids"] + record["answer_ids"]
        output = medusa.engine.model(torch.tensor([ids]), output_hidden_states=True)  # type: ignore[attr-defined]
        expected = output.hidden_states[-1][0, len(record["prompt_ids"]) - 1 : -1]
        torch.testing.assert_close(cache.read([key])[key], expected.half(), atol=2e-3, rtol=2e-3)


def test_answers_are_the_base_models_own(make_config: Any, medusa: Medusa) -> None:
    config = make_config()
    report = distill(config, progress=False)
    records = records_of(config)
    assert records.keys() == {f"p{place}" for place in range(len(PROMPTS))}
    for place, text in enumerate(PROMPTS):
        record, expected = records[f"p{place}"], medusa.generate(text, max_tokens=MAX_TOKENS)
        assert record["prompt"] == text
        assert record["prompt_ids"] == medusa.encode(text)
        assert record["answer_ids"] == expected.tokens
        assert record["answer"] == expected.text
        assert record["finish_reason"] == expected.finish_reason
    check_hidden(config, medusa)
    assert report.answers == len(PROMPTS)
    assert report.tokens == sum(len(record["answer_ids"]) for record in records.values())


def test_sampled_answers_do_not_depend_on_the_batch(make_config: Any, tmp_path: Path) -> None:
    one = make_config(temperature=0.8, seed=5, batch=1, hidden=False, out=tmp_path / "one.jsonl")
    many = make_config(temperature=0.8, seed=5, batch=4, hidden=False, out=tmp_path / "many.jsonl")
    distill(one, progress=False)
    distill(many, progress=False)
    answers = {key: record["answer_ids"] for key, record in records_of(one).items()}
    assert answers == {key: record["answer_ids"] for key, record in records_of(many).items()}
    assert len({tuple(ids) for ids in answers.values()}) == len(PROMPTS)
    assert not one.cache_folder.exists()


def test_stopped_run_keeps_what_is_finished_and_goes_on(
    make_config: Any, medusa: Medusa, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = make_config(out=tmp_path / "whole" / "answers.jsonl")
    distill(whole, progress=False)
    config = make_config()
    calls = iter(range(1000))

    def stop_once_some_are_done(self: writer.AnswerWriter) -> None:
        if next(calls) == MAX_TOKENS + 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer.AnswerWriter, "flush_if_due", stop_once_some_are_done)
        with pytest.raises(KeyboardInterrupt):
            distill(config, progress=False)
    early = records_of(config)
    assert 0 < len(early) < len(PROMPTS)
    report = distill(config, progress=False)
    assert (report.before, report.answers) == (len(early), len(PROMPTS) - len(early))
    assert records_of(config) == records_of(whole)
    check_hidden(config, medusa)
    assert distill(config, progress=False).answers == 0


def test_killed_run_goes_on(make_config: Any, medusa: Medusa) -> None:
    config = make_config()
    script = f"""
import os, signal
from medusa_decoding.distill import DistillConfig, distill, writer
writer.FLUSH_SECONDS = 0.0
flush, calls = writer.AnswerWriter.flush_if_due, iter(range(1000))
def flush_and_die(self):
    flush(self)
    if next(calls) == {MAX_TOKENS + 2}:
        os.kill(os.getpid(), signal.SIGKILL)
writer.AnswerWriter.flush_if_due = flush_and_die
distill(DistillConfig.model_validate_json({config.model_dump_json()!r}), progress=False)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    early = records_of(config)
    assert 0 < len(early) < len(PROMPTS)
    # The kill may also have come in the middle of a line.
    with config.out.open("a", encoding="utf-8") as file:
        file.write('{"id": "p6", "prompt": "q", "prompt_')
    report = distill(config, progress=False)
    assert report.before == len(early)
    assert len(records_of(config)) == len(PROMPTS)
    check_hidden(config, medusa)


def test_file_of_another_writer_is_continued(make_config: Any) -> None:
    """A record needs no finish_reason, and a file no note beside it."""
    config = make_config()
    config.out.parent.mkdir()
    record = {"id": "p2", "prompt": "bb", "prompt_ids": [1], "answer_ids": [2], "answer": "!"}
    config.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    report = distill(config, progress=False)
    assert (report.before, report.answers) == (1, len(PROMPTS) - 1)
    assert records_of(config)["p2"] == record


@pytest.mark.parametrize(
    ("change", "message"),
    [({"max_tokens": 5}, "max_tokens 12, not 5"), ({"temperature": 0.5}, "temperature 0.0, not 0.5")],
)
def test_other_settings_are_refused(make_config: Any, change: dict[str, Any], message: str) -> None:
    distill(make_config(limit=1), progress=False)
    with pytest.raises(UserError, match=message):
        distill(make_config(**change), progress=False)


def test_other_model_is_refused(make_config: Any, tmp_path: Path) -> None:
    distill(make_config(limit=1), progress=False)
    with pytest.raises(UserError, match="was written by another model"):
        distill(make_config(model=str(tiny_llama(tmp_path / "other", seed=9))), progress=False)


def test_other_prompts_with_the_same_ids_are_refused(make_config: Any, tmp_path: Path) -> None:
    distill(make_config(limit=2), progress=False)
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "p0", "prompt": "another"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"line \d: answer p0 belongs to another prompt"):
        distill(make_config(prompts=other), progress=False)


def test_limit_grows(make_config: Any) -> None:
    assert distill(make_config(limit=2), progress=False).answers == 2
    assert distill(make_config(limit=4), progress=False).answers == 2
    assert records_of(make_config()).keys() == {"p0", "p1", "p2", "p3"}


def test_long_prompts_are_left_out_and_counted(make_config: Any, medusa: Medusa) -> None:
    longest = max(len(medusa.encode(text)) for text in PROMPTS)
    config = make_config(max_prompt_tokens=longest - 1)
    report = distill(config, progress=False)
    assert (report.too_long, report.answers) == (1, len(PROMPTS) - 1)
    assert "p5" not in records_of(config)


def test_later_turns_see_the_models_own_answers(make_config: Any, medusa: Medusa, tmp_path: Path) -> None:
    prompts = tmp_path / "turns.jsonl"
    prompts.write_text('{"id": 1, "turns": ["a", "b"]}\n{"id": 2, "prompt": "c"}\n', encoding="utf-8")
    config = make_config(prompts=prompts)
    first = {"role": "user", "content": "a"}
    distill(config, progress=False)
    records = records_of(config)
    assert records.keys() == {1, 2, "1/2"}
    said = [first, {"role": "assistant", "content": records[1]["answer"]}, {"role": "user", "content": "b"}]
    assert records["1/2"]["messages"] == said
    assert records["1/2"]["answer_ids"] == medusa.generate(said, max_tokens=MAX_TOKENS).tokens
    lines = config.out.read_text(encoding="utf-8").splitlines(keepends=True)
    # Without the second turn's answer, the first turn's is found in the file and continued.
    config.out.write_text("".join(line for line in lines if '"1/2"' not in line), encoding="utf-8")
    assert distill(config, progress=False).answers == 1
    assert records_of(config) == records


def test_conversation_needs_a_chat_template(make_config: Any, tmp_path: Path) -> None:
    plain = str(tiny_llama(tmp_path / "plain", chat_template=None))
    config = make_config(model=plain, limit=1)
    distill(config, progress=False)
    assert len(records_of(config)["p0"]["prompt_ids"]) == 1
    prompts = tmp_path / "turns.jsonl"
    prompts.write_text('{"id": 1, "turns": ["a", "b"]}\n', encoding="utf-8")
    with pytest.raises(UserError, match="has no chat template, and prompt 1 is a conversation"):
        distill(make_config(model=plain, prompts=prompts, out=tmp_path / "o" / "a.jsonl"), progress=False)


def note_of(config: DistillConfig) -> Any:
    return json.loads(config.record_path.read_text(encoding="utf-8"))


def test_several_answers_differ_and_belong_together(make_config: Any, medusa: Medusa, tmp_path: Path) -> None:
    prompts = tmp_path / "turns.jsonl"
    prompts.write_text('{"id": 1, "turns": ["a", "b"]}\n{"id": 2, "prompt": "c"}\n', encoding="utf-8")
    config = make_config(prompts=prompts, temperature=1.0, answers=3, hidden=False)
    assert distill(config, progress=False).answers == 9
    records = records_of(config)
    assert records.keys() == {1, "1/2", "1#2", "1#2/2", "1#3", "1#3/2", 2, "2#2", "2#3"}
    assert len({tuple(record["answer_ids"]) for record in records.values()}) == 9
    assert {record.get("prompt_id", record["id"]) for record in records.values()} == {1, 2}
    assert records["1#2/2"]["messages"][1]["content"] == records["1#2"]["answer"]
    # More answers later are added to those that are there.
    assert distill(make_config(prompts=prompts, temperature=1.0, answers=4), progress=False).answers == 3


def test_loops_are_dropped_counted_and_not_written_again(
    make_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prompts = tmp_path / "turns.jsonl"
    prompts.write_text('{"id": 1, "turns": ["a", "b", "c"]}\n{"id": 2, "prompt": "hello there"}\n')
    plain = make_config(prompts=prompts, out=tmp_path / "plain" / "answers.jsonl")
    distill(plain, progress=False)
    looping = records_of(plain)["1/2"]["answer_ids"]
    monkeypatch.setattr(writer, "is_loop", lambda tokens: tokens == looping)
    config = make_config(prompts=prompts)
    report = distill(config, progress=False)
    # Its conversation ends with it.
    assert records_of(config).keys() == {1, 2}
    assert (report.answers, report.dropped) == (2, {"loop": 1})
    assert note_of(config)["counts"]["dropped"] == {"loop": 1}
    (line,) = config.dropped_path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == "1/2"
    assert "1/2" not in HiddenCache(config.cache_folder, note_of(config)["fingerprint"])
    again = distill(config, progress=False)
    assert (again.answers, again.tokens, again.dropped) == (0, 0, {"loop": 1})


def test_model_that_only_loops_leaves_no_answers(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    monkeypatch.setattr(writer, "is_loop", lambda tokens: True)
    report = distill(config, progress=False)
    assert (report.answers, report.dropped) == (0, {"loop": len(PROMPTS)})
    assert not config.out.exists()
    with pytest.raises(UserError, match="max_tokens 12, not 5"):
        distill(make_config(max_tokens=5), progress=False)


def test_prompts_of_an_evaluation_are_left_out(make_config: Any, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"turns": ["tell me", "1 2 3 4 5 6 7 8 9"]}\n{"prompt": "Q?"}\n', encoding="utf-8")
    assert distill(make_config(limit=6), progress=False).answers == 6
    report = distill(make_config(exclude=suite), progress=False)
    assert (report.excluded, report.answers, report.contaminated) == (2, 0, 1)
    assert "WARNING: 1 answers there before" in str(report)
    clean = make_config(exclude=[suite], out=tmp_path / "clean" / "answers.jsonl")
    report = distill(clean, progress=False)
    assert (report.excluded, report.answers, report.contaminated) == (2, len(PROMPTS) - 2, 0)
    assert records_of(clean).keys() == {"p0", "p1", "p2", "p3", "p4"}
    assert note_of(clean)["counts"]["excluded"] == 2


def test_several_prompts_files(make_config: Any, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("m\nn\n", encoding="utf-8")
    first = make_config()
    distill(first, progress=False)
    config = make_config(prompts=[first.prompts[0], more])
    assert distill(config, progress=False).answers == 2
    assert records_of(config)["more:2"]["prompt"] == "n"
    assert note_of(config)["engines"] == ["torch-float64-cpu"]


def test_the_librarys_functions_are_prompts_like_others(make_config: Any) -> None:
    # No path, but the name that `--prompts` knows.
    config = make_config(prompts=Path("python-library"), limit=2, max_prompt_tokens=2000)
    report = distill(config, progress=False)
    assert report.answers + report.too_long + sum(report.dropped.values()) == 2
    noted = json.loads(config.record_path.read_text(encoding="utf-8"))
    assert noted["prompts"][0]["path"] == "python-library" and len(noted["prompts"][0]["sha256"]) == 64
    assert distill(config, progress=False).before == report.answers


def test_a_model_that_is_not_there_leaves_no_folder(make_config: Any, tmp_path: Path) -> None:
    config = make_config(model=str(tmp_path / "absent"), out=tmp_path / "new" / "answers.jsonl")
    with pytest.raises(UserError):
        distill(config, progress=False)
    assert not config.out.parent.exists()


def test_what_is_left_out_and_what_is_there_is_told_first(
    make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps({"turns": [PROMPTS[1]]}) + "\n", encoding="utf-8")
    distill(make_config(limit=3, exclude=[suite]), progress=False)
    capsys.readouterr()
    distill(make_config(exclude=[suite]))
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 7 prompts are left out: they share eight words with suite.jsonl" in said
    assert "2 answers are there already" in said


def test_room_for_hidden_states_is_told_first(make_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    distill(make_config(), progress=True)
    # 7 answers of at most 12 tokens, 16 numbers of 2 bytes each.
    assert "hidden states of 7 answers will take at most 2.7 kB" in capsys.readouterr().err
    distill(make_config(limit=3), progress=True)
    assert "hidden states of" not in capsys.readouterr().err
