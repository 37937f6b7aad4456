"""Medusa-2: heads first, on the base model as it is, then both together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.files import atomic_folder
from medusa_decoding.heads import MedusaHeads, check_fingerprint, from_pretrained, save_pretrained
from medusa_decoding.models import BaseModel, Source, load_base_model, resolve
from medusa_decoding.models.fingerprint import fingerprint
from medusa_decoding.models.hf_folder import save_base
from medusa_decoding.training import data, report
from medusa_decoding.training.calibration import calibrate, temperature_of, with_calibration
from medusa_decoding.training.card import CARD_FILE
from medusa_decoding.training.checkpoint import CHECKPOINT_FILE
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.evaluation import evaluate
from medusa_decoding.training.hidden import SharedWeights
from medusa_decoding.training.joint.adapters import (
    LoraBase,
    TrainableBase,
    trainable_base,
    trained_parameters,
)
from medusa_decoding.training.joint.evaluation import base_change, held_out_positions
from medusa_decoding.training.joint.trainer import JointTrainer
from medusa_decoding.training.report import TrainingReport
from medusa_decoding.training.run import compute_dtype_name, earlier_run, public_name, read_split, train

OnStep = Callable[[int, float], None]

ADAPTER_FOLDER, BASE_FOLDER, WARMUP_FOLDER = "adapter", "base", "warmup"
# Texts on which base model and heads are looked at; each look runs the base model over all of them.
_HELD_OUT_TEXTS = 64


def train_jointly(config: TrainingConfig, *, progress: bool, on_step: OnStep | None) -> TrainingReport:
    """Train heads alone, then base model and heads; write both and their record into `config.out`.

    The heads alone are a Medusa-1 training of its own in `warmup`, unless the configuration names some. The
    heads stand in `config.out`, beside them `adapter` (LoRA) and `base` (the model as a whole). on_step:
    called after each step of the joint training. Resumes and raises as `train` does.
    """
    begun_with = None if config.initial_heads is None else from_pretrained(config.initial_heads)
    if begun_with is not None:
        config = _as_heads_say(config, begun_with)
    earlier = earlier_run(config)
    if earlier is not None and earlier.finished:
        return earlier
    heads = begun_with or _warmed_up(config, progress=progress)
    source = resolve(config.model, progress=progress)
    base = load_base_model(source, device=config.device, dtype=_dtype(config))
    check_fingerprint(heads.config, base.fingerprint)
    found, training, validation = read_split(config, base, SharedWeights.of(base.model))
    held_out = validation[:_HELD_OUT_TEXTS]
    record = earlier or _new_record(config, base, heads, found.facts, (training, held_out))
    record.settings = config.settings()
    trainable = trainable_base(config, base)
    heads = heads.to(base.model.device)
    shared = SharedWeights.of(trainable.model)
    heads.bind(shared.lm_head, shared.embedding, shared.bias)
    if earlier is None:
        record.compute_dtype = compute_dtype_name(config, heads)
        _note_beginning(config, record, trainable, heads, held_out, progress=progress)
    trainer = JointTrainer(config, trainable, heads, training, getattr(torch, record.compute_dtype))
    with JobProgress("joint training", trainer.steps, done=trainer.step, enabled=progress) as bar:
        _run(trainer, bar, on_step)
    return _finish(trainer, base, source, record, held_out, progress=progress)


def _as_heads_say(config: TrainingConfig, heads: MedusaHeads) -> TrainingConfig:
    """The configuration with the shape that the given heads have."""
    names = ("num_heads", "num_layers", "projection", "condition")
    shape: dict[str, Any] = {name: getattr(heads.config, name) for name in names}
    return config.model_copy(update={**shape, "draft_vocabulary": heads.config.draft_vocabulary_size})


def _dtype(config: TrainingConfig) -> str:
    """Weights that are all trained need float32; frozen ones do not."""
    return "float32" if config.adapter == "full" and config.dtype == "auto" else config.dtype


def _warmed_up(config: TrainingConfig, *, progress: bool) -> MedusaHeads:
    """Heads of a Medusa-1 training; one that is finished is not repeated."""
    alone = config.model_copy(update={"method": "medusa1", "out": config.out / WARMUP_FOLDER})
    train(alone, progress=progress)
    return from_pretrained(alone.out)


def _new_record(
    config: TrainingConfig,
    base: BaseModel,
    heads: MedusaHeads,
    read: dict[str, Any],
    answers: tuple[list[Answer], list[Answer]],
) -> TrainingReport:
    training, held_out = answers
    size = heads.config.draft_vocabulary_size or heads.config.vocabulary_size
    facts = {**read, "draft_vocabulary": size}
    for prefix, texts in (("", training), ("validation_", held_out)):
        facts[f"{prefix}texts"] = len(texts)
        facts[f"{prefix}positions"] = sum(len(answer.answer_ids) for answer in texts)
        facts[f"{prefix}coverage"] = data.coverage(texts, heads.token_map)
    about = {"model": f"{public_name(base)}-medusa2", "original": public_name(base)}
    about["original_fingerprint"] = base.fingerprint
    return TrainingReport(config.recipe(), facts, about, report.machine(), report.versions())


def _note_beginning(
    config: TrainingConfig,
    record: TrainingReport,
    base: TrainableBase,
    heads: MedusaHeads,
    held_out: list[Answer],
    *,
    progress: bool,
) -> None:
    """Keep what the heads can do before the joint training, on the original's hidden states."""
    given = config.initial_heads
    record.joint = {
        "began_with": WARMUP_FOLDER
        if given is None
        else given.resolve().name
        if given.is_dir()
        else str(given),
        "trained_parameters": sum(one.numel() for one in trained_parameters(base).values()),
    }
    if held_out:
        positions = held_out_positions(base, heads, held_out, config.forward_tokens, progress=progress)
        record.joint["heads_before"] = evaluate(heads, positions).as_dict()
    report.save_report(config.out, record)


def _run(trainer: JointTrainer, bar: JobProgress, on_step: OnStep | None) -> None:
    try:
        while trainer.step < trainer.steps:
            loss, positions = trainer.advance()
            bar.advance(1, positions, f"loss {loss:.3f}")
            if on_step is not None:
                on_step(trainer.step, loss)
        trainer.checkpoint()
    except KeyboardInterrupt:
        trainer.checkpoint()
        bar.say(f"stopped after step {trainer.step} of {trainer.steps}; the same command goes on from there")
        raise
    finally:
        trainer.close()


def _finish(
    trainer: JointTrainer,
    base: BaseModel,
    source: Source,
    record: TrainingReport,
    held_out: list[Answer],
    *,
    progress: bool,
) -> TrainingReport:
    """Look at both, write both. The checkpoint goes last, so that a kill only repeats this."""
    config, heads = trainer.config, trainer.heads
    trainer.bind_heads()
    if held_out:
        _note_end(trainer, record, held_out, progress=progress)
    record.steps, record.seconds = trainer.step, round(trainer.seconds, 1)
    record.positions_per_second = round(trainer.positions / max(trainer.seconds, 1e-9), 1)
    _save_base(trainer, base, source, record)
    heads.config = heads.config.model_copy(
        update={"base_model": record.base["model"], "base_fingerprint": record.base["fingerprint"]}
    )
    record.finished = True
    save_pretrained(heads, config.out, extra_files={CARD_FILE: report.model_card(record)})
    report.save_report(config.out, record)
    (config.out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return record


def _save_base(trainer: JointTrainer, base: BaseModel, source: Source, record: TrainingReport) -> None:
    """Write what was learnt of the base model, as an adapter, as a whole model, or both."""
    config = trainer.config
    if isinstance(trainer.base, LoraBase):
        record.base["adapter"] = ADAPTER_FOLDER
        with atomic_folder(config.out / ADAPTER_FOLDER) as folder:
            trainer.base.save_adapter(folder, record.base["original"])
    model = trainer.base.merged()
    record.base["fingerprint"] = fingerprint(model)
    if config.merge or config.adapter == "full":
        record.base["folder"] = BASE_FOLDER
        save_base(model, base, source, config.out / BASE_FOLDER)


def _note_end(
    trainer: JointTrainer, record: TrainingReport, held_out: list[Answer], *, progress: bool
) -> None:
    """Keep what the base model has become, and what the heads can do on it."""
    config, heads = trainer.config, trainer.heads
    record.joint["base"] = asdict(
        base_change(trainer.base, held_out, config.forward_tokens, progress=progress)
    )
    positions = held_out_positions(trainer.base, heads, held_out, config.forward_tokens, progress=progress)
    evaluation = evaluate(heads, positions)
    found = calibrate(heads, positions)
    heads.config = with_calibration(heads.config, found, temperature_of(config.data))
    record.calibration = [asdict(one) for one in found]
    recent = trainer.losses[-trainer.steps_per_epoch :]
    figures = {"epoch": config.joint_epochs, "step": trainer.step, "loss": sum(recent) / len(recent)}
    record.history = [{**figures, **evaluation.as_dict()}]
