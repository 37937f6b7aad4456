"""A base model in 4 or 8 bits, or spread by a device map."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from medusa_decoding.distill.answers import Answer, append_records
from medusa_decoding.errors import UserError
from medusa_decoding.heads import from_pretrained
from medusa_decoding.models import BaseModel, load_base_model, resolve
from medusa_decoding.training import TrainingConfig, train
from medusa_decoding.training.estimate import base_weights
from medusa_decoding.training.hidden import SharedWeights, answer_states
from medusa_decoding.training.machines import this_machine
from medusa_decoding.training.shapes import shape_named
from tests.tiny import tiny_tokenizer

# Widths that bitsandbytes' 4 bits take.
WIDTH = 64
TEXT = Answer("0", [1, 2, 3], [4, 5, 6, 7])
SPREAD = {
    "model.embed_tokens": "disk", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu",
    "model.rotary_emb": "cpu", "lm_head": "disk",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, bos_token_id=None, eos_token_id=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def original(folder: Path) -> BaseModel:
    return load_base_model(resolve(str(folder)), device="cpu")


@pytest.fixture
def make_config(folder: Path, tmp_path: Path) -> Any:
    data = tmp_path / "answers.jsonl"
    append_records(data, ({"id": n, "prompt_ids": [n, 3], "answer_ids": [1, 2, 3, 4]} for n in range(8)))

    def make(**fields: Any) -> TrainingConfig:
        out = {"model": str(folder), "data": data, "out": tmp_path / "heads", "epochs": 1, "device": "cpu"}
        return TrainingConfig.of(**{**out, "compute_dtype": "float32", **fields})

    return make


@torch.inference_mode()
def states_of(base: BaseModel) -> torch.Tensor:
    return answer_states(base.model, [TEXT])[0]


@pytest.mark.parametrize(("quantization", "error"), [("8bit", 0.05), ("4bit", 0.4)])
def test_heads_are_trained_on_the_states_of_a_quantised_model(
    original: BaseModel, make_config: Any, quantization: Any, error: float
) -> None:
    config = make_config(quantization=quantization)
    base = load_base_model(resolve(config.model), device="cpu", quantization=quantization)
    # The rest is norms, which count as nothing, and scales of 8-bit rows.
    shape = shape_named(config.model)
    machine = this_machine(config, shape)
    taken = sum(one.numel() * one.element_size() for one in base.model.parameters() if one.dim() == 2)
    scales = shape.layer_parameters / 16 if quantization == "4bit" else 0
    assert base_weights(config, shape, machine) == taken + scales
    expected, found = states_of(original), states_of(base)
    assert 0 < (found - expected).norm() < error * expected.norm()
    report = train(config, progress=False)
    assert report.finished and report.recipe["quantization"] == quantization
    assert from_pretrained(config.out).config.base_fingerprint == base.fingerprint != original.fingerprint
    with pytest.raises(UserError, match="holds hidden states of another base model"):
        train(make_config(out=config.out.parent / "plain"), progress=False)


@pytest.mark.parametrize("device_map", ["auto", SPREAD])
def test_a_spread_model_is_the_same_model(original: BaseModel, folder: Path, device_map: Any) -> None:
    spread = load_base_model(resolve(str(folder)), device="cpu", device_map=device_map)
    assert spread.model.get_output_embeddings().weight.is_meta == (device_map is SPREAD)
    assert spread.fingerprint == original.fingerprint
    torch.testing.assert_close(states_of(spread), states_of(original))
    shared = SharedWeights.gathered(spread.model, torch.device("cpu"))
    whole = SharedWeights.of(original.model)
    assert torch.equal(shared.lm_head, whole.lm_head) and torch.equal(shared.embedding, whole.embedding)
    assert spread.model.get_output_embeddings().weight.is_meta == (device_map is SPREAD)


def test_heads_of_a_spread_model_are_the_same_heads(make_config: Any, tmp_path: Path) -> None:
    for name, fields in (("whole", {"engine": "torch"}), ("spread", {"device_map": "auto"})):
        train(
            make_config(out=tmp_path / name, hidden_cache=tmp_path / f"{name}-states", **fields),
            progress=False,
        )
    whole, spread = (from_pretrained(tmp_path / name) for name in ("whole", "spread"))
    assert whole.config.base_fingerprint == spread.config.base_fingerprint
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(spread.state_dict()[name], weight)


def test_what_does_not_go_together_is_named(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="quantization is for a base model that stays as it is"):
        make_config(quantization="8bit", method="medusa2")
    with pytest.raises(UserError, match="device_map is for torch; leave it out, or choose engine torch"):
        make_config(device_map="auto", engine="cpu")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"pip install 'medusa-decoding\[quantization\]'"):
        train(make_config(quantization="4bit"), progress=False)
