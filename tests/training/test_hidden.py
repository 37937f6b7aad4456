from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from medusa_decoding.distill import DistillConfig, distill
from medusa_decoding.distill.answers import Answer, read_answers
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.errors import UserError
from medusa_decoding.models import BaseModel, load_base_model, resolve
from medusa_decoding.training import TrainingConfig, hidden, hidden_on_cpu
from medusa_decoding.training.hidden import SharedWeights, fill_cache
from medusa_decoding.training.hidden_on_cpu import engine_for
from tests.tiny import HIDDEN_SIZE, VOCABULARY_SIZE, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(model: Path) -> BaseModel:
    return load_base_model(resolve(str(model)))


def answers_of(lengths: list[tuple[int, int]]) -> list[Answer]:
    generator = torch.Generator().manual_seed(0)
    return [
        Answer(
            str(number),
            torch.randint(250, (prompt,), generator=generator).tolist(),
            torch.randint(250, (answer,), generator=generator).tolist(),
        )
        for number, (prompt, answer) in enumerate(lengths)
    ]


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_states_are_those_of_each_text_alone(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    monkeypatch.setattr(hidden, "BATCH_TOKENS", batch_tokens)
    answers = answers_of([(3, 5), (1, 1), (9, 2), (4, 12)])
    cache = HiddenCache(tmp_path, base.fingerprint)
    fill_cache(base, answers, cache, progress=False)
    for answer in answers:
        output = base.model(torch.tensor([answer.prompt_ids + answer.answer_ids]), output_hidden_states=True)
        expected = output.hidden_states[-1][0, len(answer.prompt_ids) - 1 : -1]
        found = cache.read([answer.key])[answer.key]
        assert found.shape == (len(answer.answer_ids), HIDDEN_SIZE)
        torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)


def test_only_missing_states_are_computed_and_shards_are_cut(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "SHARD_TOKENS", 4)
    monkeypatch.setattr(hidden, "BATCH_TOKENS", 1)
    answers = answers_of([(2, 3), (2, 4), (2, 5)])
    cache = HiddenCache(tmp_path, base.fingerprint)
    marked = torch.full((3, HIDDEN_SIZE), 7.0)
    cache.write({"0": marked})
    fill_cache(base, answers, cache, progress=False)
    assert torch.equal(cache.read(["0"])["0"].float(), marked)
    assert len(list(tmp_path.glob("hidden-*.safetensors"))) == 3
    assert len(HiddenCache(tmp_path, base.fingerprint)) == 3


@pytest.mark.parametrize("pass_rows", [5, 512])
def test_cpu_engines_states_are_those_of_decoding(
    model: Path, base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pass_rows: int
) -> None:
    """Bit for bit what `distill` keeps on the same engine, in any pieces; and near torch's in fp32."""
    monkeypatch.setattr(hidden_on_cpu, "PASS_ROWS", pass_rows)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hello there\nb\nwhat is it?\n", encoding="utf-8")
    out = tmp_path / "own" / "answers.jsonl"
    distill(
        DistillConfig.of(model=str(model), prompts=prompts, out=out, max_tokens=9, engine="cpu"),
        progress=False,
    )
    answers = read_answers(out)
    assert len(answers) == 3
    config = TrainingConfig.of(model=str(model), data=out, out=tmp_path / "heads")
    cache = HiddenCache(tmp_path / "again", base.fingerprint)
    fill_cache(base, answers, cache, progress=False, engine=lambda: engine_for(config, resolve(str(model))))
    kept = HiddenCache(tmp_path / "own" / "hidden", base.fingerprint)
    for answer in answers:
        assert torch.equal(cache.read([answer.key])[answer.key], kept.read([answer.key])[answer.key])
    fill_cache(
        base, answers, torch_cache := HiddenCache(tmp_path / "torch", base.fingerprint), progress=False
    )
    for answer in answers:
        near = torch_cache.read([answer.key])[answer.key]
        assert (cache.read([answer.key])[answer.key] - near).norm() < 0.1 * near.norm()


def test_torch_is_taken_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    source = resolve(str(model))

    def engine(**fields: str) -> object:
        return engine_for(TrainingConfig.of(model="m", data="d", out="o", **fields), source)

    assert engine() is not None
    assert engine(engine="torch") is engine(dtype="float64") is None
    assert engine(quantization="8bit") is engine(device_map="auto") is None
    assert engine(engine="cpu", dtype="float64") is not None


def test_model_that_the_cpu_engine_cannot_run_goes_to_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=258)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    source = resolve(str(tmp_path))
    assert engine_for(TrainingConfig.of(model="m", data="d", out="o"), source) is None
    with pytest.raises(UserError, match=r"the CPU engine cannot run .*choose --engine torch"):
        engine_for(TrainingConfig.of(model="m", data="d", out="o", engine="cpu"), source)


def test_the_model_is_left_as_it_was(base: BaseModel, tmp_path: Path) -> None:
    fill_cache(base, answers_of([(2, 3)]), HiddenCache(tmp_path, base.fingerprint), progress=False)
    assert base.model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, VOCABULARY_SIZE)


def test_shared_weights_are_the_models(base: BaseModel) -> None:
    shared = SharedWeights.of(base.model)
    assert shared.lm_head.shape == shared.embedding.shape == (VOCABULARY_SIZE, HIDDEN_SIZE)
    assert shared.bias is None
