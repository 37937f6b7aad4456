"""Train heads on a frozen base model's answers (Medusa-1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.hidden_cache import HiddenStates
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.errors import UserError
from medusa_decoding.heads import HeadsConfig, MedusaHeads, save_pretrained
from medusa_decoding.models import BaseModel, load_base_model, resolve
from medusa_decoding.models.placement import device_named
from medusa_decoding.training import data, report
from medusa_decoding.training.calibration import calibrate, temperature_of, with_calibration
from medusa_decoding.training.card import CARD_FILE
from medusa_decoding.training.checkpoint import CHECKPOINT_FILE
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.data import Positions
from medusa_decoding.training.hidden import SharedWeights, fill_cache
from medusa_decoding.training.hidden_on_cpu import engine_for
from medusa_decoding.training.objective import Objective
from medusa_decoding.training.precision import compute_dtype
from medusa_decoding.training.processes import Processes, joined, refuse_several
from medusa_decoding.training.report import TrainingReport
from medusa_decoding.training.sources import TrainingData, checksum, hidden_states_of, read_training_data
from medusa_decoding.training.trainer import Trainer

OnStep = Callable[[int, float], None]

# Positions on which the base model's agreement with the answers is counted.
_AGREEMENT_POSITIONS = 2048
_LEAST_AGREEMENT = 0.1


def train(config: TrainingConfig, *, progress: bool = True, on_step: OnStep | None = None) -> TrainingReport:
    """Train heads and write them, with their record and model card, into `config.out`.

    A run that was killed goes on from its last checkpoint, and ends with the same heads as an uninterrupted
    one. Launched in several processes, all train and the main one writes. on_step: called after each
    optimiser step with its number and loss. Raises UserError when data, model and settings do not fit each
    other, or `config.out` holds another training.
    """
    if config.method == "medusa2":
        from medusa_decoding.training.joint.run import train_jointly

        refuse_several("Medusa-2")
        return train_jointly(config, progress=progress, on_step=on_step)
    if config.device_map is not None:
        refuse_several("a model spread by --device-map")
    with joined(config.device) as processes:
        return _train(config, processes, progress=progress and processes.is_main, on_step=on_step)


def _train(
    config: TrainingConfig, processes: Processes, *, progress: bool, on_step: OnStep | None
) -> TrainingReport:
    before = earlier_run(config)
    if before is not None and before.finished:
        return before
    with processes.main_first():
        source = resolve(config.model, progress=progress)
    base = load_base_model(
        source,
        device=processes.device,
        dtype=config.dtype,
        quantization=config.quantization,
        device_map=config.device_map,
    )
    shared = SharedWeights.gathered(base.model, device_named(processes.device))
    found, training, validation = read_split(config, base, shared)
    with processes.main_first():
        cache = hidden_states_of(config, found, base.fingerprint)
        fill_cache(base, found.answers, cache, progress=progress, engine=lambda: engine_for(config, source))
    heads = _new_heads(config, base, shared, (training, validation))
    parts = [_positions(heads, part, cache) for part in (training, validation)]
    record = before or _new_record(
        config, base, heads, found.facts, (training, validation), (parts[0], parts[1])
    )
    agreement = _agreement(shared, parts[0])
    record.data["base_agreement"] = agreement
    record.settings = config.settings()
    # A resumed run computes as it began, whatever this machine measures now.
    record.compute_dtype = processes.on_main(
        lambda: record.compute_dtype if before else compute_dtype_name(config, heads)
    )
    record.machine["processes"] = processes.count
    if processes.is_main:
        report.save_report(config.out, record)
    objective = Objective(config, heads, shared, getattr(torch, record.compute_dtype))
    del base, shared
    trainer = Trainer(config, heads, objective, parts[0], parts[1], processes)
    with JobProgress("training", trainer.steps, done=trainer.step, enabled=progress) as bar:
        if config.draft_vocabulary is not None:
            bar.say(report.coverage_line(record))
        if agreement < _LEAST_AGREEMENT:
            bar.say(f"warning: the base model agrees with {agreement:.0%} of the answers: are they its own?")
        _run(trainer, bar, on_step)
    return processes.on_main(lambda: _finish(config, trainer, record))


def earlier_run(config: TrainingConfig) -> TrainingReport | None:
    """The record of the run that `config.out` holds; raises UserError if it is not this one."""
    data_sum = checksum(config.data)
    earlier = report.load_report(config.out)
    if earlier is None:
        if (config.out / "medusa_config.json").exists() or (config.out / CHECKPOINT_FILE).exists():
            raise UserError(f"{config.out} holds other heads; give another out folder")
        return None
    recipe, earlier_recipe = config.recipe(), {"method": "medusa1", **earlier.recipe}
    changed = [name for name in recipe if earlier_recipe.get(name) != recipe[name]]
    if changed:
        was, now = earlier_recipe.get(changed[0]), recipe[changed[0]]
        raise UserError(
            f"{config.out} holds a training with {changed[0]} {was!r}, not {now!r};"
            " give the same settings to resume it, or another out folder"
        )
    if earlier.data.get("sha256") != data_sum:
        raise UserError(
            f"{earlier.data.get('path')} is not what the training in {config.out} began with;"
            " give another out folder"
        )
    return earlier


def read_split(
    config: TrainingConfig, base: BaseModel, shared: SharedWeights
) -> tuple[TrainingData, list[Answer], list[Answer]]:
    """All data, its texts to train on and those kept from it; raises UserError where they do not fit."""
    found = read_training_data(config, base.tokenizer, base.context_length)
    data.check_ids(found.answers, shared.lm_head.shape[0])
    return found, *data.split(found.answers, config.validation_fraction)


def _new_heads(
    config: TrainingConfig,
    base: BaseModel,
    shared: SharedWeights,
    answers: tuple[list[Answer], list[Answer]],
) -> MedusaHeads:
    """Float32 heads on the base model's device, bound to it; at first they guess as the base model does."""
    vocabulary_size, hidden_size = shared.lm_head.shape
    token_map = _token_map(config, answers, base.tokenizer.eos_ids, vocabulary_size)
    heads = MedusaHeads(
        HeadsConfig(
            num_heads=config.num_heads,
            num_layers=config.num_layers,
            hidden_size=hidden_size,
            vocabulary_size=vocabulary_size,
            projection=config.projection,
            condition=config.condition,
            draft_vocabulary_size=None if token_map is None else len(token_map),
            base_model=public_name(base),
            base_fingerprint=base.fingerprint,
        ),
        token_map,
    ).to(shared.lm_head.device)
    heads.bind(shared.lm_head, shared.embedding, shared.bias)
    heads.initialise_projection(shared.lm_head)
    return heads


def _token_map(
    config: TrainingConfig,
    answers: tuple[list[Answer], list[Answer]],
    ends: Iterable[int],
    vocabulary_size: int,
) -> torch.Tensor | None:
    """(T,) the draft vocabulary as target ids; None for the whole vocabulary."""
    size = config.draft_vocabulary
    if size == "auto":
        size = data.auto_size(*answers, ends, vocabulary_size)
        size = None if size == vocabulary_size else size
    return None if size is None else data.draft_vocabulary(answers[0], size, ends, vocabulary_size)


def _positions(heads: MedusaHeads, answers: list[Answer], cache: HiddenStates) -> Positions:
    config = heads.config
    assert config.vocabulary_size is not None
    token_map = None if heads.token_map is None else heads.token_map.cpu()
    return data.build_positions(
        answers, cache, config.num_heads, config.hidden_size, token_map, config.vocabulary_size
    )


def _new_record(
    config: TrainingConfig,
    base: BaseModel,
    heads: MedusaHeads,
    read: dict[str, Any],
    answers: tuple[list[Answer], list[Answer]],
    positions: tuple[Positions, Positions],
) -> TrainingReport:
    token_map = None if heads.token_map is None else heads.token_map.cpu()
    facts: dict[str, Any] = {
        **read,
        "draft_vocabulary": heads.config.draft_vocabulary_size or heads.config.vocabulary_size,
        "texts": len(answers[0]),
        "positions": len(positions[0].rows_with_labels()),
        "coverage": data.coverage(answers[0], token_map),
        "validation_texts": len(answers[1]),
        "validation_positions": len(positions[1].rows_with_labels()),
        "validation_coverage": data.coverage(answers[1], token_map),
    }
    about = {"model": public_name(base), "fingerprint": base.fingerprint}
    return TrainingReport(config.recipe(), facts, about, report.machine(), report.versions())


def compute_dtype_name(config: TrainingConfig, heads: MedusaHeads) -> str:
    """The name of the type in which this machine computes the heads' products."""
    return str(compute_dtype(config.compute_dtype, heads.device)).removeprefix("torch.")


def public_name(base: BaseModel) -> str:
    """What others may know the base model by: a path of this machine is cut to its last part."""
    path = Path(base.name).expanduser()
    return path.resolve().name if path.exists() else base.name


@torch.inference_mode()
def _agreement(shared: SharedWeights, positions: Positions) -> float:
    """How often the likeliest token at a hidden state is the one that the answer has there."""
    if not len(positions.rows_with_labels()):
        raise UserError("the answers are too short to train on: one with two tokens is needed at least")
    stride = max(1, len(positions) // _AGREEMENT_POSITIONS)
    hidden = positions.hidden[::stride].to(shared.lm_head.device, shared.lm_head.dtype)
    best = [
        functional.linear(part, shared.lm_head, shared.bias).argmax(-1).cpu() for part in hidden.split(256)
    ]
    return float((torch.cat(best) == positions.roots[::stride]).double().mean())


def _run(trainer: Trainer, bar: JobProgress, on_step: OnStep | None) -> None:
    try:
        while not trainer.done:
            loss = trainer.advance()
            bar.advance(1, trainer.positions_per_step, f"loss {loss:.3f}")
            if trainer.at_epoch_end:
                bar.say(trainer.summary())
            if on_step is not None:
                on_step(trainer.step, loss)
    except KeyboardInterrupt:
        trainer.checkpoint()
        bar.say(f"stopped after step {trainer.step} of {trainer.steps}; the same command goes on from there")
        raise
    finally:
        trainer.close()


def _finish(config: TrainingConfig, trainer: Trainer, record: TrainingReport) -> TrainingReport:
    """Calibrate; write heads, record and card. The checkpoint goes last, so that a kill only repeats this."""
    heads = trainer.heads
    record.kept_epoch = trainer.keep_best()
    if len(trainer.validation):
        found = calibrate(heads, trainer.validation)
        heads.config = with_calibration(heads.config, found, temperature_of(config.data))
        record.calibration = [asdict(one) for one in found]
    record.history, record.steps, record.seconds = trainer.history, trainer.step, round(trainer.seconds, 1)
    positions = trainer.step * trainer.positions_per_step
    record.positions_per_second = round(positions / max(trainer.seconds, 1e-9), 1)
    record.finished = True
    save_pretrained(heads, config.out, extra_files={CARD_FILE: report.model_card(record)})
    report.save_report(config.out, record)
    Path(config.out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return record
