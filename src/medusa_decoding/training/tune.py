"""Measure heads on texts of their base model, calibrate them, and find their best static tree."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from medusa_decoding.decoding import Drafter, SamplingParameters
from medusa_decoding.decoding.calibration import Fit
from medusa_decoding.distill.answers import Answer, read_answers
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.distill.prompts import read_prompts
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa, load
from medusa_decoding.heads import HeadsConfig
from medusa_decoding.heads.config import CalibrationFit
from medusa_decoding.training.tune_config import TuneConfig
from medusa_decoding.training.tune_report import TuneReport, measure
from medusa_decoding.training.tuned_heads import folder_of, target_of, write_tuned
from medusa_decoding.training.written_texts import Written, kept_texts, write_texts
from medusa_decoding.tuning.guesses import Guesses, concatenated, guesses_in
from medusa_decoding.tuning.static_tree import best_choices, cross_validated_tokens
from medusa_decoding.tuning.static_tree import tokens_per_step as static_tokens

_DEFAULT_PROMPTS = 64


def tune(config: TuneConfig, *, progress: bool = True) -> TuneReport:
    """Measure the heads, and write their calibration and `tuning.json` into their folder, or a copy.

    Packaged heads stay as they are: without `out` the figures are only returned. Raises UserError where there
    are no heads, no usable texts, or nothing can be written to the folder asked for.
    """
    medusa = load(
        config.model,
        heads=config.heads,
        tree="1",
        engine=config.engine,
        weights=config.weights,
        threads=config.threads,
        device=config.device,
        dtype=config.dtype,
        progress=progress,
    )
    if medusa.heads is None:
        raise UserError(f"there are no heads for {medusa.name}: name some with --heads, or train them first")
    target = target_of(config, medusa)
    drawn, source = _drawn(config, medusa, progress)
    heads = medusa.heads.config
    measured = [measure(guesses, heads, temperature) for temperature, guesses in sorted(drawn.items())]
    lowest = drawn[min(drawn)]
    choices = best_choices(lowest, config.nodes)
    report = TuneReport(
        model=medusa.name,
        heads=medusa.heads_name or "",
        engine=str(getattr(medusa.engine, "description", "torch")),
        source=source,
        medusa_choices=[list(path) for path in choices],
        static={
            "rows": len(choices) + 1,
            "tokens_per_step": static_tokens(lowest, choices),
            "tokens_per_step_held_out": cross_validated_tokens(lowest, config.nodes),
        },
        measured=measured,
        written=None if target is None else target.folder,
    )
    if target is not None:
        write_tuned(target, _recalibrated(heads, [one.fit for one in measured]), report)
    return report


def _drawn(config: TuneConfig, medusa: Medusa, progress: bool) -> tuple[dict[float, Guesses], dict[str, Any]]:
    """The heads' guesses in texts, by the temperature these were drawn at, and where the texts are from."""
    if config.data is not None:
        from medusa_decoding.training.calibration import temperature_of

        answers, held_out = _answers(config, config.data, medusa)
        temperature = temperature_of([config.data])
        texts = kept_texts(medusa, answers, config.data.parent / "hidden")
        guesses = _guesses(medusa, texts, len(answers), "answers", progress)
        source = {"data": config.data.name, "answers": len(answers), "held_out_in_training": held_out}
        return {temperature: guesses}, source
    prompts = _prompts(config, medusa)
    drawn = {}
    for temperature in sorted(set(config.temperatures)):
        sampling = SamplingParameters(temperature=temperature, seed=config.seed)
        texts = write_texts(medusa, prompts, sampling, config.max_tokens, config.batch)
        name = f"texts at temperature {temperature:g}"
        drawn[temperature] = _guesses(medusa, texts, len(prompts), name, progress)
    assert config.prompts is not None
    source = {"prompts": config.prompts.name, "count": len(prompts), "max_tokens": config.max_tokens}
    return drawn, source


def _guesses(medusa: Medusa, texts: Iterable[Written], count: int, name: str, progress: bool) -> Guesses:
    # The heads themselves: the drafter that decodes maps what they say.
    drafter, parts = cast(Drafter, medusa.heads), list[Guesses]()
    with JobProgress(name, count, enabled=progress) as bar:
        for number, (tokens, states) in enumerate(texts):
            if len(tokens) > 1:
                part = guesses_in(drafter, [(tokens, states)])
                parts.append(Guesses(part.probabilities, part.ranks, part.texts + number))
            bar.advance(1, len(tokens))
    if not parts:
        raise UserError("the texts are too short to measure heads on: give others, two tokens long at least")
    return concatenated(parts)


def _prompts(config: TuneConfig, medusa: Medusa) -> list[list[int]]:
    """The first prompts that leave room for an answer, as token ids."""
    assert config.prompts is not None
    found = []
    for prompt in read_prompts(config.prompts):
        ids = medusa.encode(prompt.text if prompt.text is not None else prompt.messages)
        if len(ids) + 2 <= medusa.context_length:
            found.append(ids)
        if len(found) == (config.limit or _DEFAULT_PROMPTS):
            break
    if not found:
        raise UserError(f"all prompts of {config.prompts} are longer than the model's context: give others")
    return found


def _answers(config: TuneConfig, path: Path, medusa: Medusa) -> tuple[list[Answer], bool]:
    """Answers to measure on, and whether they are those that the heads' training kept for evaluation."""
    from medusa_decoding.training.data import check_ids, split

    if not path.is_file():
        raise UserError(f"there is no file {path}: make it with `medusa distill`, or check the path")
    context = medusa.context_length
    answers = [one for one in read_answers(path) if len(one.prompt_ids) + len(one.answer_ids) <= context]
    if not answers:
        raise UserError(f"{path} holds no answers to measure heads on: make some with `medusa distill`")
    check_ids(answers, medusa.engine.vocabulary_size)
    fraction = _held_out_fraction(medusa, path)
    if fraction:
        answers = split(answers, fraction)[1]
    return answers[: config.limit], fraction > 0


def _held_out_fraction(medusa: Medusa, data: Path) -> float:
    """The share of the file's texts that the heads were not trained on; 0 where they were trained on others.

    A file of the same name counts as the same one: it may have grown since.
    """
    from medusa_decoding.training.report import load_report

    record = load_report(folder_of(medusa))
    if record is None or record.data.get("path") != data.name:
        return 0.0
    return float(record.recipe.get("validation_fraction", 0.0))


def _recalibrated(heads: HeadsConfig, fits: list[Fit]) -> HeadsConfig:
    """The config with these fits; fits at other temperatures stay."""
    found = {one.temperature: one for one in heads.path_calibration or []}
    found.update({one.temperature: CalibrationFit.of(one) for one in fits})
    return heads.model_copy(update={"path_calibration": [found[key] for key in sorted(found)]})
