"""Let a base model answer prompts: those of files, and its own."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medusa_decoding.distill import note
from medusa_decoding.distill.answers import cut_torn_line, read_records
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.distiller import Distiller
from medusa_decoding.distill.exclusion import Exclusion
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.distill.prompts import Prompt, check_names, gather_prompts, sampled
from medusa_decoding.distill.report import DistillReport
from medusa_decoding.distill.self_prompts import SelfPrompter, own_prompts
from medusa_decoding.distill.writer import AnswerWriter
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa, load
from medusa_decoding.models import load_tokenizer, resolve


class _Job(Protocol):
    """What writes texts step by step, each step telling how many it settled and how many tokens it took."""

    def steps(self) -> Iterator[tuple[int, int]]: ...


class _Answerer(_Job, Protocol):
    """What writes answers. finished: those kept; too_long: prompts left out."""

    finished: int
    too_long: int
    tokens: int

    @property
    def turns_left(self) -> int: ...


@dataclass(frozen=True)
class _Done:
    """What earlier runs left: answers by id, ids of dropped answers."""

    answers: dict[str, str]
    dropped: set[str]

    def first_open(self, prompt: Prompt) -> Prompt | None:
        """The prompt's first turn without an answer; None where one was dropped."""
        turn: Prompt | None = prompt
        while turn is not None and str(turn.name) in self.answers:
            turn = turn.after(self.answers[str(turn.name)])
        return None if turn is None or str(turn.name) in self.dropped else turn


@dataclass(frozen=True)
class _Plan:
    """What there is to do.

    excluded: prompts too much like an evaluation's. open_turns: those to be answered now.
    """

    prompts: list[Prompt]
    excluded: list[Prompt]
    done: _Done
    open_turns: list[Prompt]

    @classmethod
    def of(cls, config: DistillConfig, given: list[Prompt], exclusion: Exclusion) -> _Plan:
        """Sort the given prompts out, and look at what earlier runs left."""
        excluded = [prompt for prompt in given if exclusion.covers_prompt(prompt)]
        keys = {prompt.key for prompt in excluded}
        prompts = sampled([prompt for prompt in given if prompt.key not in keys], config.answers)
        check_names(prompts)
        done = _earlier(config, prompts)
        turns = [turn for prompt in prompts if (turn := done.first_open(prompt)) is not None]
        return cls(prompts, sampled(excluded, config.answers), done, turns)

    @property
    def contaminated(self) -> int:
        """Answers of earlier runs to prompts that are excluded now."""
        return sum(str(prompt.name) in self.done.answers for prompt in self.excluded)


def distill(config: DistillConfig, *, progress: bool = True) -> DistillReport:
    """Append the base model's own answers to `config.out`, and their hidden states to `hidden` beside it.

    Answers that are there already stay: a run that was killed goes on. Degenerate loops are dropped, and
    noted beside. Raises UserError for prompts that cannot be read, and for a file that was written by another
    model or with other settings.
    """
    given = gather_prompts(config.prompts)[: config.limit]
    exclusion = Exclusion(config.exclude)
    if config.endpoint is not None:
        return _remote(config, given, exclusion, progress)
    base = load(
        config.model,
        draft="none",
        engine=config.engine,
        device=config.device,
        dtype=config.dtype,
        progress=progress,
    )
    # Only now: a model that is not there leaves nothing behind.
    config.out.parent.mkdir(parents=True, exist_ok=True)
    note.claim(config, base.name, base.fingerprint, _description(base))
    cache = HiddenCache(config.cache_folder, base.fingerprint, config.out.name) if config.hidden else None
    if config.self_prompts is not None:
        _write_own_prompts(config, base, exclusion, given, progress)
        given = [*given, *own_prompts(config)]
    plan = _Plan.of(config, given, exclusion)
    writer = AnswerWriter(config, cache)
    distiller = Distiller(config, base, writer, plan.open_turns)
    size = _hidden_size(base) if config.hidden else None
    return _write_answers(config, plan, distiller, writer, size, progress)


def _remote(
    config: DistillConfig, given: list[Prompt], exclusion: Exclusion, progress: bool
) -> DistillReport:
    from medusa_decoding.distill.endpoint import model_at
    from medusa_decoding.distill.remote import RemoteDistiller

    tokenizer = load_tokenizer(resolve(config.model, progress=progress))
    name = model_at(config)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    note.claim(config, config.model, f"endpoint model {name}", f"endpoint {config.endpoint}")
    plan = _Plan.of(config, given, exclusion)
    writer = AnswerWriter(config, None)
    distiller = RemoteDistiller(config, name, tokenizer, writer, plan.open_turns)
    return _write_answers(config, plan, distiller, writer, None, progress)


def _write_answers(
    config: DistillConfig,
    plan: _Plan,
    distiller: _Answerer,
    writer: AnswerWriter,
    hidden_size: int | None,
    progress: bool,
) -> DistillReport:
    with JobProgress("answers", distiller.turns_left, enabled=progress) as bar:
        for line in _beforehand(config, plan):
            bar.say(line)
        if hidden_size is not None and distiller.turns_left:
            bar.say(_announcement(config, distiller.turns_left, hidden_size))
        try:
            _follow(distiller, bar, config.out)
        finally:
            writer.flush()
        counts = _counts(config, plan)
        note.note_counts(config, {**counts, "too_long": distiller.too_long})
        return DistillReport(
            config.out,
            distiller.finished,
            len(plan.done.answers),
            distiller.too_long,
            distiller.tokens,
            bar.seconds,
            excluded=counts["excluded"],
            dropped=counts["dropped"],
            contaminated=plan.contaminated,
        )


def _write_own_prompts(
    config: DistillConfig, base: Medusa, exclusion: Exclusion, given: list[Prompt], progress: bool
) -> None:
    texts = [str(prompt.messages[-1]["content"]) for prompt in given]
    prompter = SelfPrompter(config, base, exclusion, texts)
    assert config.self_prompts is not None
    with JobProgress("own prompts", config.self_prompts, done=prompter.count, enabled=progress) as bar:
        try:
            _follow(prompter, bar, config.self_prompts_path)
        finally:
            prompter.flush()
        if prompter.missed:
            bar.say(_misses(config, prompter.missed))


def _misses(config: DistillConfig, missed: Mapping[str, int]) -> str:
    """What became of the attempts at own prompts that were none."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(missed.items()))
    longer = f"; --self-prompt-tokens {2 * config.self_prompt_tokens} would let more of them end"
    mostly = 2 * missed.get("unfinished", 0) > sum(missed.values())
    return f"attempts at prompts of its own that were dropped: {reasons}{longer if mostly else ''}"


def _beforehand(config: DistillConfig, plan: _Plan) -> Iterator[str]:
    """What is said of the prompts before any is answered."""
    if plan.excluded:
        every = len(plan.prompts) + len(plan.excluded)
        files = ", ".join(path.name for path in config.exclude)
        yield f"{len(plan.excluded)} of {every} prompts are left out: they share eight words with {files}"
    if plan.done.answers:
        yield f"{len(plan.done.answers)} answers are there already"


def _follow(job: _Job, bar: JobProgress, out: Path) -> None:
    try:
        for units, tokens in job.steps():
            bar.advance(units, tokens)
    except KeyboardInterrupt:
        bar.say(f"stopped; what is finished is in {out}, and the same command goes on from there")
        raise


def _earlier(config: DistillConfig, prompts: list[Prompt]) -> _Done:
    """What is in the files; what a kill left of a last line is cut off.

    Raises UserError when an answer there belongs to another prompt of the same id.
    """
    done = _Done({}, set())
    if config.out.is_file():
        cut_torn_line(config.out)
        asked = {str(prompt.name): prompt.text for prompt in prompts}
        for number, record in read_records(config.out):
            key, text = str(record.get("id")), record.get("prompt")
            if None not in (text, asked.get(key)) and text != asked[key]:
                raise UserError(
                    f"{config.out}, line {number}: answer {key} belongs to another prompt than"
                    " the prompts file has there; give another out file"
                )
            done.answers[key] = str(record.get("answer", ""))
    if config.dropped_path.is_file():
        cut_torn_line(config.dropped_path)
        done.dropped.update(
            str(record.get("id"))
            for _, record in read_records(config.dropped_path)
            if not str(record.get("reason")).startswith("self-prompt")
        )
    return done


def _counts(config: DistillConfig, plan: _Plan) -> dict[str, Any]:
    """For the note: prompts asked and excluded, answers and their tokens, dropped texts by reason."""
    answers = tokens = 0
    for _, record in read_records(config.out) if config.out.is_file() else ():
        answers, tokens = answers + 1, tokens + len(record.get("answer_ids", []))
    dropped: Counter[str] = Counter()
    if config.dropped_path.is_file():
        dropped.update(str(record.get("reason")) for _, record in read_records(config.dropped_path))
    return {
        "prompts": (len(plan.prompts) + len(plan.excluded)) // config.answers,
        "excluded": len(plan.excluded) // config.answers,
        "answers": answers,
        "tokens": tokens,
        "dropped": dict(sorted(dropped.items())),
    }


def _announcement(config: DistillConfig, answers: int, hidden_size: int) -> str:
    """How much room the hidden states will take, before they do; in float16."""
    size = answers * config.max_tokens * hidden_size * 2
    free = shutil.disk_usage(config.out.parent).free
    room = f", but only {_in_bytes(free)} are free" if free < size else ""
    return (
        f"hidden states of {answers} answers will take at most {_in_bytes(size)} in"
        f" {config.cache_folder}{room}; --no-hidden leaves them out"
    )


def _in_bytes(size: int) -> str:
    unit, name = next((one for one in ((1e9, "GB"), (1e6, "MB")) if size >= one[0]), (1e3, "kB"))
    return f"{size / unit:.1f} {name}"


def _hidden_size(base: Medusa) -> int:
    engine: Any = base.engine
    if hasattr(engine, "shape"):
        return int(engine.shape.hidden_size)
    return int(engine.model.config.get_text_config().hidden_size)


def _description(base: Medusa) -> str:
    """What wrote the answers."""
    engine: Any = base.engine
    if hasattr(engine, "description"):
        return str(engine.description)
    return f"torch-{str(engine.model.dtype).removeprefix('torch.')}-{engine.model.device.type}"
