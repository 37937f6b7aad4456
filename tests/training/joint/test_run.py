from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medusa_decoding.distill.answers import append_records
from medusa_decoding.errors import UserError
from medusa_decoding.generation import load
from medusa_decoding.heads import MedusaHeads, from_pretrained
from medusa_decoding.models import load_base_model, resolve
from medusa_decoding.training import TrainingConfig, train
from medusa_decoding.training.checkpoint import CHECKPOINT_FILE
from medusa_decoding.training.joint.loss import heads_loss
from medusa_decoding.training.report import load_report
from tests.hub.stand_in import StandIn
from tests.training.joint.conftest import MakeConfig

Losses = list[tuple[int, float]]


def losses_of(config: TrainingConfig) -> Losses:
    losses: Losses = []
    train(config, progress=False, on_step=lambda step, loss: losses.append((step, loss)))
    return losses


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    files = [path for place in (".", "adapter", "base") for path in (folder / place).glob("*.safetensors")]
    return {f"{path.name}:{name}": one for path in files for name, one in load_file(path).items()}


def assert_same(one: Path, other: Path) -> None:
    first, second = tensors_of(one), tensors_of(other)
    assert len(first) > 10 and first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_base_and_heads_learn_together_and_are_loaded_by_both_engines(
    make_config: MakeConfig, adapter: str
) -> None:
    config = make_config(adapter=adapter, merge=True, joint_epochs=12, base_learning_rate=0.01)
    report = train(config, progress=False)
    before, after = report.joint["heads_before"], report.accuracies
    assert sum(after["validation_loss"]) < sum(before["validation_loss"])
    assert after["tokens_per_step"] > before["tokens_per_step"]
    for engine in ("torch", "cpu"):
        medusa = load(str(config.out / "base"), heads=config.out, engine=engine, weights="fp32")
        # The heads know this base by its fingerprint.
        assert medusa.heads != "medusa1"
        assert medusa.fingerprint == report.base["fingerprint"] == medusa.heads.config.base_fingerprint
        (fitted,) = medusa.heads.config.path_calibration
        assert fitted.slopes == pytest.approx([one["slope"] for one in report.calibration])
        plain = medusa.generate([1, 3], speculative=False, max_tokens=8)
        assert medusa.generate([1, 3], max_tokens=8).tokens == plain.tokens


def test_kl_holds_the_base_model_while_the_heads_pull_at_it(make_config: MakeConfig) -> None:
    """The answers are not the model's own: cross-entropy moves it to them, divergence keeps it away."""
    fields = {"joint_epochs": 6, "base_learning_rate": 0.01}
    kl = train(make_config(**fields), progress=False).joint["base"]
    out = make_config().out.with_name("ce")
    ce = train(make_config(**fields, lm_loss="ce", out=out), progress=False).joint["base"]
    assert kl["original_perplexity"] == ce["original_perplexity"]
    assert 0 < kl["kl"] < 0.1 < ce["kl"]
    assert ce["perplexity"] < ce["original_perplexity"] / 2
    assert abs(kl["perplexity"] / kl["original_perplexity"] - 1) < 0.4


def test_adapter_on_the_original_is_the_merged_model(make_config: MakeConfig, model: Path) -> None:
    config = make_config(merge=True)
    train(config, progress=False)
    merged = load_base_model(resolve(str(config.out / "base")))
    adapted = load_base_model(resolve(str(model)), adapter=str(config.out / "adapter"))
    original = load_base_model(resolve(str(model)))
    assert merged.fingerprint == adapted.fingerprint != original.fingerprint
    assert merged.tokenizer.eos_ids == original.tokenizer.eos_ids
    tokens = torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(merged.model(tokens).logits, adapted.model(tokens).logits)
    assert not torch.allclose(merged.model(tokens).logits, original.model(tokens).logits, atol=1e-4)
    written = json.loads((config.out / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == model.name


def test_lora_leaves_lm_head_and_embedding_alone(make_config: MakeConfig, model: Path) -> None:
    config = make_config(merge=True, base_learning_rate=0.05)
    train(config, progress=False)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, config.out / "base"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= before.keys() - changed
    assert all("proj" in name for name in changed) and len(changed) == 2 * 7


def test_full_training_saves_the_lm_head_that_its_heads_are_bound_to(
    make_config: MakeConfig, model: Path
) -> None:
    config = make_config(adapter="full", base_learning_rate=0.01)
    report = train(config, progress=False)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, config.out / "base"))
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    medusa = load(str(config.out / "base"), heads=config.out, engine="torch")
    rows = after["lm_head.weight"][from_pretrained(config.out).token_map]
    assert torch.equal(medusa.heads.heads.lm_head, rows)
    assert report.joint["trained_parameters"] == sum(one.numel() for one in before.values())


def test_heads_guess_with_the_lm_head_as_it_is_at_that_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def spy(heads: MedusaHeads, *arguments: Any) -> Any:
        assert heads.lm_head is not None
        seen.append(heads.lm_head.clone())
        return heads_loss(heads, *arguments)

    monkeypatch.setattr("medusa_decoding.training.joint.trainer.heads_loss", spy)
    config = make_config(adapter="full", base_learning_rate=0.01, forward_tokens=10_000)
    train(config, progress=False)
    heads = from_pretrained(config.out)
    after = load_file(config.out / "base" / "model.safetensors")["lm_head.weight"][heads.token_map]
    # At the first step nothing pulls at the lm_head yet: the model is the original.
    far = [float((one - after).abs().max()) for one in seen[1:]]
    assert len(far) == 17 and far == sorted(far, reverse=True)
    assert far[0] > 0.01 > far[-1]


def test_several_sources_are_read_without_loops_as_for_heads_alone(make_config: MakeConfig) -> None:
    own = make_config().data[0]
    people = own.with_name("people.jsonl")
    append_records(own, [{"id": "loop", "prompt_ids": [1], "answer_ids": [5] * 40}])
    append_records(
        people, ({"prompt": f"say {number}", "response": f"this is {number}"} for number in range(9))
    )
    config = make_config(data=[own, people], joint_epochs=0.2, forward_tokens=10_000)
    report = train(config, progress=False)
    alone = load_report(config.out / "warmup")
    assert alone is not None
    assert report.data["path"] == "answers.jsonl, people.jsonl" and report.data["loops"] == 1
    for name in ("path", "sha256", "loops", "too_long", "sources", "texts", "validation_texts"):
        assert report.data[name] == alone.data[name]
    assert report.data["texts"] + report.data["validation_texts"] == 39
    assert train(config, progress=False) == report
    with pytest.raises(UserError, match=r"answers\.jsonl, people\.jsonl is not what the training"):
        train(make_config(data=own, joint_epochs=0.2, forward_tokens=10_000), progress=False)


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_resumed_run_equals_the_uninterrupted_one(
    make_config: MakeConfig, tmp_path: Path, adapter: str
) -> None:
    whole = losses_of(make_config(out=tmp_path / "whole", adapter=adapter))
    config = make_config(checkpoint_seconds=1e-9, adapter=adapter)
    early: Losses = []

    def stop(step: int, loss: float) -> None:
        early.append((step, loss))
        if step in (3, len(whole)):
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            train(config, progress=False, on_step=stop)
    assert early == whole and losses_of(config) == []
    assert_same(config.out, tmp_path / "whole")
    one, other = (json.loads((out / "training.json").read_text()) for out in (config.out, tmp_path / "whole"))
    for part in ("history", "calibration", "joint", "base", "data"):
        assert one[part] == other[part]
    assert not (config.out / CHECKPOINT_FILE).exists()


def test_killed_run_goes_on_from_its_last_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(out=tmp_path / "whole"), progress=False)
    config = make_config(checkpoint_seconds=1e-9)
    script = f"""
import os, signal
from medusa_decoding.training import TrainingConfig, train
def die(step, loss):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train(TrainingConfig.model_validate_json({config.model_dump_json()!r}), progress=False, on_step=die)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert losses_of(config)[0][0] == 6
    assert_same(config.out, tmp_path / "whole")


def test_finished_run_is_not_repeated_and_another_one_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    report = train(config, progress=False)
    assert losses_of(config) == [] and train(config, progress=False) == report
    with pytest.raises(UserError, match="holds a training with lora_rank 4, not 8"):
        train(make_config(lora_rank=8), progress=False)
    with pytest.raises(UserError, match="holds a training with method 'medusa2', not 'medusa1'"):
        train(make_config(method="medusa1"), progress=False)


def test_joint_training_begins_with_given_heads(
    make_config: MakeConfig, tmp_path: Path, hub: StandIn
) -> None:
    given = make_config(method="medusa1", out=tmp_path / "given", num_heads=2, draft_vocabulary=6)
    train(given, progress=False)
    report = train(make_config(initial_heads=given.out), progress=False)
    assert report.recipe["num_heads"] == 2 and report.recipe["draft_vocabulary"] == 6
    assert report.settings["initial_heads"] == "given" and report.settings["data"] == ["answers.jsonl"]
    assert report.joint["began_with"] == "given"
    assert not (make_config().out / "warmup").exists()
    assert from_pretrained(make_config().out).config.num_heads == 2
    hub.add("me/heads", {path.name: path.read_bytes() for path in given.out.glob("medusa_*")})
    again = train(make_config(initial_heads="me/heads@main", out=tmp_path / "again"), progress=False)
    assert again.joint["began_with"] == "me/heads@main" and again.recipe == report.recipe
    with pytest.raises(UserError, match="No Medusa heads at"):
        train(make_config(initial_heads=tmp_path / "nothing", out=tmp_path / "a"), progress=False)


def test_forward_passes_of_any_size_are_the_same_training(make_config: MakeConfig, tmp_path: Path) -> None:
    small = losses_of(make_config(forward_tokens=1))
    large = losses_of(make_config(forward_tokens=10_000, out=tmp_path / "large"))
    assert [step for step, _ in small] == [step for step, _ in large]
    for (_, one), (_, other) in zip(small, large, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_products_in_bfloat16_are_nearly_the_same_training(
    make_config: MakeConfig, tmp_path: Path, adapter: str
) -> None:
    whole = losses_of(make_config(adapter=adapter))
    short = losses_of(make_config(adapter=adapter, compute_dtype="bfloat16", out=tmp_path / "short"))
    assert whole != short
    for (_, one), (_, other) in zip(whole, short, strict=True):
        assert one == pytest.approx(other, rel=0.05, abs=0.02)


def test_full_training_of_short_floats_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="full training needs weights of float32, not bfloat16"):
        train(make_config(adapter="full", dtype="bfloat16"), progress=False)


def test_card_says_what_became_of_the_base_model(make_config: MakeConfig) -> None:
    config = make_config(draft_vocabulary="auto")
    report = train(config, progress=False)
    card = (config.out / "README.md").read_text(encoding="utf-8")
    base, before, after = report.joint["base"], report.joint["heads_before"], report.accuracies
    assert f"{base['original_perplexity']:.3f} → {base['perplexity']:.3f}" in card
    assert f"| 2 | {before['top1'][1]:.3f} → {after['top1'][1]:.3f} |" in card
    assert 'adapter="FOLDER_OF_THIS_FILE/adapter"' in card
    # "auto" chose the whole vocabulary, which is a small one.
    assert f"Draft vocabulary of {from_pretrained(config.out).config.vocabulary_size} tokens" in card
    assert "The text of this model is not the original's" in card
