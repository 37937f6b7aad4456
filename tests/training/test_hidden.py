from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.models import BaseModel, load_base_model, resolve
from medusa_decoding.training import hidden
from medusa_decoding.training.hidden import SharedWeights, fill_cache
from tests.tiny import HIDDEN_SIZE, VOCABULARY_SIZE, tiny_llama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base_model(resolve(str(tiny_llama(tmp_path_factory.mktemp("base")))))


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


def test_the_model_is_left_as_it_was(base: BaseModel, tmp_path: Path) -> None:
    fill_cache(base, answers_of([(2, 3)]), HiddenCache(tmp_path, base.fingerprint), progress=False)
    assert base.model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, VOCABULARY_SIZE)


def test_shared_weights_are_the_models(base: BaseModel) -> None:
    shared = SharedWeights.of(base.model)
    assert shared.lm_head.shape == shared.embedding.shape == (VOCABULARY_SIZE, HIDDEN_SIZE)
    assert shared.bias is None
