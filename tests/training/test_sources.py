from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from medusa_decoding.distill.answers import Answer, append_records
from medusa_decoding.errors import UserError
from medusa_decoding.models import Tokenizer
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.sources import checksum, hidden_states_of, read_source, read_training_data
from tests.tiny import tiny_tokenizer

ALPACA = {"instruction": "a", "output": "bc"}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


def jsonl(path: Path, *records: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    append_records(path, records)
    return path


def distilled(path: Path, *keys: int | str) -> Path:
    return jsonl(path, *({"id": key, "prompt_ids": [1, 2], "answer_ids": [3, 4]} for key in keys))


def config_of(data: list[Path], out: Path, **fields: Any) -> TrainingConfig:
    return TrainingConfig.of(model="m", data=data, out=out, **fields)


def test_distilled_answers_are_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = jsonl(
        tmp_path / "answers.jsonl",
        {"id": 1, "prompt_ids": [1, 2], "answer_ids": [3]},
        {"id": 2, "prompt_ids": [1] * 9, "answer_ids": [3]},
        {"id": "1#2", "prompt_id": 1, "prompt_ids": [1, 2], "answer_ids": [5]},
        {"id": 1, "prompt_ids": [1, 2], "answer_ids": [4]},
    )
    assert read_source(path, tokenizer, 10).answers == [
        Answer("1", [1, 2], [4]),
        Answer("2", [1] * 9, [3]),
        Answer("1#2", [1, 2], [5], "1"),
    ]
    source = read_source(path, tokenizer, 9)
    assert ([answer.key for answer in source.answers], source.too_long) == (["1", "1#2"], 1)


def test_loops_among_distilled_answers_are_left_out_unless_they_are_wanted(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    loop = {"id": 1, "prompt_ids": [1], "answer_ids": [3, 4] * 20}
    own = jsonl(tmp_path / "answers.jsonl", loop, {"id": 2, "prompt_ids": [1], "answer_ids": [3, 4]})
    data = read_training_data(config_of([own], tmp_path), tokenizer, 100)
    assert ([answer.key for answer in data.answers], data.facts["loops"]) == (["2"], 1)
    kept = read_training_data(config_of([own], tmp_path, loops="keep"), tokenizer, 100)
    assert ([answer.key for answer in kept.answers], kept.facts["loops"]) == (["1", "2"], 0)
    people = jsonl(tmp_path / "people.jsonl", {"instruction": "sing", "output": "la " * 20})
    assert len(read_source(people, tokenizer, 100).answers) == 1


def test_supervised_records_have_ids_of_their_own(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = jsonl(tmp_path / "a.jsonl", ALPACA, {**ALPACA, "id": "x"}, {**ALPACA, "id": "x"})
    source = read_source(path, tokenizer, 100)
    assert not source.distilled
    assert [answer.key for answer in source.answers] == ["1/1", "x/1", "x@3/1"]


def test_sources_are_mixed_and_each_keeps_its_states(tmp_path: Path, tokenizer: Tokenizer) -> None:
    own = distilled(tmp_path / "own" / "answers.jsonl", 1, 2)
    other = distilled(tmp_path / "other" / "more.jsonl", 1)
    people = jsonl(tmp_path / "people.jsonl", ALPACA)
    config = config_of([own, other, people], tmp_path / "heads")
    data = read_training_data(config, tokenizer, 100)
    assert [answer.key for answer in data.answers] == ["1", "2", "more:1", "people:1/1"]
    assert [answer.group for answer in data.answers] == ["1", "2", "more:1", "people:1"]
    assert data.facts["path"] == "answers.jsonl, more.jsonl, people.jsonl"
    assert [one["answers"] for one in data.facts["sources"]] == [2, 1, 1]
    assert data.facts["sha256"] == checksum(config.data) != checksum(config.data[:2])
    states = hidden_states_of(config, data, "base")
    keys = [answer.key for answer in data.answers]
    assert not any(key in states for key in [*keys, "nobody"])
    states.write({key: torch.full((2, 3), float(place)) for place, key in enumerate(keys)})
    for cache in (states, hidden_states_of(config, data, "base")):
        found = cache.read(reversed(keys))
        assert [found[key][0, 0].item() for key in keys] == [0, 1, 2, 3]
    assert states.folder_of("more:1") == tmp_path / "other" / "hidden"
    assert states.folder_of("people:1/1").name.startswith("hidden-people-")
    assert len(list((tmp_path / "own" / "hidden").glob("*.safetensors"))) == 1


def test_states_of_changed_files_and_other_models_are_not_mixed_up(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = jsonl(tmp_path / "people.jsonl", ALPACA)
    config = config_of([path], tmp_path / "heads")

    def folder(fingerprint: str) -> Path:
        data = read_training_data(config, tokenizer, 100)
        return hidden_states_of(config, data, fingerprint).folder_of("1/1")

    first = folder("base")
    assert folder("base") == first != folder("other")
    jsonl(path, ALPACA)
    assert folder("base") != first


def test_hidden_cache_may_stand_elsewhere(tmp_path: Path, tokenizer: Tokenizer) -> None:
    own = distilled(tmp_path / "own" / "answers.jsonl", 1)
    other = distilled(tmp_path / "more.jsonl", 1)
    one = config_of([own], tmp_path / "heads", hidden_cache=tmp_path / "states")
    data = read_training_data(one, tokenizer, 100)
    assert hidden_states_of(one, data, "base").folder_of("1") == tmp_path / "states"
    two = config_of([own, other], tmp_path / "heads", hidden_cache=tmp_path / "states")
    data = read_training_data(two, tokenizer, 100)
    assert hidden_states_of(two, data, "base").folder_of("more:1") == tmp_path / "states" / "more"


def test_two_distilled_files_in_one_folder_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = config_of(
        [distilled(tmp_path / "a.jsonl", 1), distilled(tmp_path / "b.jsonl", 1)], tmp_path / "heads"
    )
    with pytest.raises(UserError, match="another base model or answers file"):
        hidden_states_of(config, read_training_data(config, tokenizer, 100), "base")


def test_a_source_given_twice_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = distilled(tmp_path / "a.jsonl", 1)
    with pytest.raises(UserError, match="is given twice"):
        read_training_data(config_of([path, path], tmp_path), tokenizer, 100)


def test_an_id_that_a_prefix_makes_equal_to_another_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, key in ((first, "b:1"), (second, "1")):
        path.write_text(
            json.dumps({"id": key, "prompt_ids": [1], "answer_ids": [5, 6]}) + "\n", encoding="utf-8"
        )
    with pytest.raises(UserError, match="another source has the id 'b:1' too"):
        read_training_data(config_of([first, second], tmp_path), tokenizer, 100)


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path: Path, tokenizer: Tokenizer) -> None:
    paths = [distilled(tmp_path / folder / "a.jsonl", 1) for folder in ("b", "c", "d")]
    config = config_of(paths, tmp_path / "heads")
    data = read_training_data(config, tokenizer, 100)
    assert [answer.key for answer in data.answers] == ["1", "a:1", "a-2:1"]
    states = hidden_states_of(config, data, "base")
    assert [states.folder_of(answer.key) for answer in data.answers] == [
        path.parent / "hidden" for path in paths
    ]
    with pytest.raises(UserError, match="two sources are called a"):
        hidden_states_of(config_of(paths, tmp_path / "heads", hidden_cache=tmp_path / "states"), data, "base")


@pytest.mark.parametrize("content", ["", '{"instruction": "a", "output": ""}\n'])
def test_files_without_answers_are_refused(tmp_path: Path, tokenizer: Tokenizer, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="holds no answers to train on"):
        read_source(path, tokenizer, 10)


def test_bad_records_are_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = jsonl(tmp_path / "a.jsonl", ALPACA, {"prompt": "only"})
    with pytest.raises(UserError, match=r"a\.jsonl, record 2 is a prompt without an answer"):
        read_source(path, tokenizer, 100)
    path = tmp_path / "b.json"
    path.write_text(json.dumps([ALPACA, {"messages": [{"role": "user"}]}]), encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.json, record 2: a message needs"):
        read_source(path, tokenizer, 100)
    with pytest.raises(UserError, match="make it with `medusa distill`"):
        read_source(tmp_path / "nothing.jsonl", tokenizer, 10)


def test_each_files_checksum_and_the_note_of_distillation_are_recorded(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    own = distilled(tmp_path / "answers.jsonl", 1)
    (tmp_path / "answers.jsonl.config.json").write_text('{"temperature": 0.5}')
    people = tmp_path / "people"
    people.mkdir()
    for name in ("one", "two"):
        parquet.write_table(pyarrow.Table.from_pylist([ALPACA]), people / f"{name}.parquet")
    config = config_of([own, people], tmp_path)
    first, second = read_training_data(config, tokenizer, 100).facts["sources"]
    sums = [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (own, people / "one.parquet", people / "two.parquet")
    ]
    assert (first["sha256"], first["distillation"]) == (sums[0], {"temperature": 0.5})
    assert [(one["path"], one["sha256"]) for one in second["files"]] == [
        ("one.parquet", sums[1]),
        ("two.parquet", sums[2]),
    ]
    assert "distillation" not in second
    # A note that cannot be read hinders no training.
    (tmp_path / "answers.jsonl.config.json").write_text("{")
    assert read_training_data(config, tokenizer, 100).facts["sources"][0]["distillation"] == {}
