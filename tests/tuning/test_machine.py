from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from medusa_decoding.decoding import Decoder, Sequence
from medusa_decoding.engines import TorchEngine
from medusa_decoding.tuning import Effort, measure
from medusa_decoding.tuning.machine import (
    describe_engine,
    describe_machine,
    processor_name,
    threads_of,
    usable_cores,
    waited_seconds,
    weight_bytes_of,
)
from tests.tiny import tiny_llama
from tests.tuning.clocked import Clock, ClockedEngine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor: 0\nmodel name\t: A Processor\nmodel name\t: Another\n", "A Processor"),
        ("model name:\nmodel name: B\n", "B"),
    ],
)
def test_the_processors_name(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_name(tmp_path / "cpuinfo") == name


def test_a_processor_without_a_name_has_its_architecture(tmp_path: Path) -> None:
    assert processor_name(tmp_path / "nothing")


def test_waiting_is_added_over_threads(tmp_path: Path) -> None:
    for name, content in (("1", "5 2000000000 3"), ("2", "1 500000000 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(content)
    assert waited_seconds(tmp_path) == 2.5
    assert waited_seconds(tmp_path / "nothing") == 0
    assert waited_seconds() >= 0


def test_the_machine() -> None:
    machine = describe_machine()
    assert machine["cores"] == usable_cores() >= 1
    assert machine["cpu"] and machine["os"]


def test_an_engine_describes_itself(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    assert (describe_engine(engine), threads_of(engine), weight_bytes_of(engine)) == (
        "made-up",
        2,
        100_000_000,
    )


class Silent:
    pass


def test_an_engine_that_tells_nothing() -> None:
    assert describe_engine(Silent()) == "silent"
    assert threads_of(Silent()) == usable_cores()
    assert weight_bytes_of(Silent()) is None


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    folder = tiny_llama(tmp_path_factory.mktemp("model"), context_length=64)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return TorchEngine(model.eval())


def test_the_torch_engine(llama: TorchEngine) -> None:
    assert describe_engine(llama) == "torch-float32-cpu"
    assert threads_of(llama) == torch.get_num_threads()


def test_an_embedding_that_is_only_looked_up_is_not_read(llama: TorchEngine) -> None:
    model = llama.model
    assert not model.config.tie_word_embeddings
    everything = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert weight_bytes_of(llama) == everything - model.get_input_embeddings().weight.numel() * 4
    tied = copy.deepcopy(model)
    tied.lm_head.weight = tied.get_input_embeddings().weight
    assert weight_bytes_of(TorchEngine(tied)) == weight_bytes_of(llama)


def test_measuring_leaves_no_trace_in_the_torch_engine(llama: TorchEngine) -> None:
    def text() -> list[int]:
        sequence = Sequence([1, 2, 3], max_tokens=20)
        for _ in Decoder(llama).decode([sequence]):
            pass
        assert sequence.handle is not None
        llama.close(sequence.handle)
        return sequence.tokens

    before = text()
    found = measure(llama, None, Effort((1, 2, 12), (16, 32, 256), rounds=2, seconds=60.0))
    assert list(found.measured.contexts) == [16, 32, 59]
    assert all(0 < time < 60_000 for times in found.measured.contexts.values() for time in times)
    assert text() == before
