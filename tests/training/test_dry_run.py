from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from medusa_decoding.errors import UserError
from medusa_decoding.heads import from_pretrained
from medusa_decoding.training import TrainingConfig
from medusa_decoding.training.dry_run import dry_run
from medusa_decoding.training.estimate import Workload, estimate, heads_parameters
from medusa_decoding.training.machines import gpu_named, this_machine
from medusa_decoding.training.shapes import SHAPES, shape_named
from tests.tiny import tiny_heads, tiny_llama


def config_of(model: str = "llama-3.1-8b", **fields: Any) -> TrainingConfig:
    return TrainingConfig.of(model=model, data=Path("answers.jsonl"), out=Path("heads"), **fields)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("smollm2", 0.1345), ("qwen-coder", 0.494), ("llama-3.2-1b", 1.236), ("mistral-7b", 7.248),
        ("llama-3.1-8b", 8.03), ("qwen2.5-7b", 7.616), ("qwen3-8b", 8.19), ("qwen2.5-32b", 32.76),
        ("llama-3.1-70b", 70.55),
    ],
)  # fmt: skip
def test_sizes_are_those_that_the_models_publish(name: str, billions: float) -> None:
    assert SHAPES[name].parameters / 1e9 == pytest.approx(billions, rel=0.005)


def test_parameters_are_those_of_the_real_modules(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = tiny_llama(tmp_path / "model")
    shape = shape_named(str(folder))
    assert shape == shape_named(str(folder / "config.json"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    weights = {name: one.numel() for name, one in model.named_parameters() if one.dim() == 2}
    assert shape.parameters == sum(weights.values())
    assert shape.layer_parameters == sum(one for name, one in weights.items() if "layers" in name)
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert trained == 3 * shape.layers * shape.linear_widths
    heads = from_pretrained(tiny_heads(tmp_path / "heads", num_heads=2))
    config = config_of(str(folder), num_heads=2, condition="none")
    matrices = sum(one.numel() for name, one in heads.named_parameters() if not name.endswith("bias"))
    assert heads_parameters(config, shape) == matrices


def test_costs_grow_with_what_is_asked_for() -> None:
    shape, work, machine = SHAPES["llama-3.1-8b"], Workload(1_000_000, 1_500_000), gpu_named("a100")

    def seconds(**fields: Any) -> float:
        return estimate(config_of(**fields), shape, work, machine).seconds

    def memory(**fields: Any) -> float:
        return estimate(config_of(**fields), shape, work, machine).memory

    assert seconds(epochs=1) < seconds(epochs=4)
    assert (
        seconds(draft_vocabulary=8192) < seconds() < seconds(loss="kl") < seconds(projection="own", loss="kl")
    )
    lora, full = {"method": "medusa2"}, {"method": "medusa2", "adapter": "full"}
    assert seconds() < seconds(**lora) < seconds(**full)
    assert seconds(**lora, lm_loss="ce") < seconds(**lora)
    assert seconds(**lora, initial_heads=Path("heads")) < seconds(**lora)
    assert memory() < memory(**lora) < memory(**full)
    assert memory(**lora) < memory(**lora, forward_tokens=8192)
    assert memory(quantization="4bit") < memory(quantization="8bit") < memory()
    # Weights, gradients and two moments in four bytes each, and the frozen copy.
    assert memory(**full) > 20 * shape.parameters


def test_more_bandwidth_helps_heads_but_not_the_products_of_the_model() -> None:
    work = Workload(1_000_000, 1_500_000)
    h100, h200 = (
        estimate(config_of(), SHAPES["llama-3.1-8b"], work, gpu_named(name)) for name in ("h100", "h200")
    )
    assert h200.heads_seconds < h100.heads_seconds
    assert h200.base_seconds == h100.base_seconds


def test_heads_of_8b_fit_on_one_consumer_gpu_and_70b_needs_several() -> None:
    small = dry_run(config_of(draft_vocabulary=32768), gpu="4090", answer_tokens=1_000_000)
    large = dry_run(config_of("llama-3.1-70b"), gpu="a100", answer_tokens=1_000_000)
    assert small.gpus == 1 and large.gpus > 1
    assert any(line.startswith("GPU-hours") for line in small.lines())
    assert "such GPUs that share the model" in "\n".join(large.lines())
    assert json.loads(json.dumps(small.as_dict()))["gpus"] == 1


def test_data_is_counted_and_kept_hidden_states_are_not_computed_again(tmp_path: Path) -> None:
    data = tmp_path / "answers.jsonl"
    data.write_text('{"id": 1, "prompt_ids": [1, 2, 3], "answer_ids": [4, 5]}\n' * 10)
    config = TrainingConfig.of(model="smollm2", data=data, out=tmp_path / "heads")
    found = dry_run(config, gpu="a100")
    assert (found.work.positions, found.work.tokens) == (20, 50)
    assert found.cost.base_seconds > 0
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "base.json").write_text("{}")
    assert dry_run(config, gpu="a100").cost.base_seconds == 0
    (tmp_path / "more").mkdir()
    more = tmp_path / "more" / "answers.jsonl"
    loop = json.dumps({"id": 2, "prompt_ids": [1], "answer_ids": [7] * 40})
    more.write_text(f'{{"id": 1, "prompt_ids": [1], "answer_ids": [4, 5]}}\n{loop}\n')
    found = dry_run(config.model_copy(update={"data": (data, more)}), gpu="a100")
    assert (found.work.positions, found.work.tokens, found.work.cached) == (22, 53, False)


@pytest.mark.parametrize("fields", [{}, {"adapter": "full"}, {"lm_loss": "ce"}])
def test_this_machine_is_measured(tmp_path: Path, fields: dict[str, Any]) -> None:
    config = config_of(str(tiny_llama(tmp_path)), compute_dtype="float32", method="medusa2", **fields)
    machine = this_machine(config, shape_named(config.model))
    assert machine.flops > 1e8 and machine.softmax > 1e5 and machine.memory > 1e8 and not machine.gpu
    # So small a layer has little of its time in products.
    assert 1e6 < machine.layer_flops < machine.flops


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no figures for the GPU 'abacus'; known are t4, l4"):
        dry_run(config_of(), gpu="abacus", answer_tokens=1)
    with pytest.raises(UserError, match="give the number of their tokens with --answer-tokens"):
        dry_run(config_of(), gpu="a100")
    with pytest.raises(UserError, match=r"did you mean llama-3.1-8b"):
        dry_run(config_of("lama-3.1-8b.gguf"), gpu="a100", answer_tokens=1)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="models of the Llama family only"):
        dry_run(config_of(str(tmp_path / "config.json")), gpu="a100", answer_tokens=1)
    (tmp_path / "chat.jsonl").write_text('{"messages": []}\n')
    config = TrainingConfig.of(model="smollm2", data=tmp_path / "chat.jsonl", out=tmp_path)
    with pytest.raises(UserError, match="is not of `medusa distill`"):
        dry_run(config, gpu="a100")
