"""Let a base model answer a file of prompts."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from medusa_decoding.decoding import Decoder, SamplingParameters, Sequence
from medusa_decoding.distill.answers import JsonObject, cut_torn_line, read_records
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.hidden_cache import HiddenCache
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.distill.prompts import Prompt, read_prompts
from medusa_decoding.distill.writer import AnswerWriter
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.generation import Medusa, load

# Prompts are sorted by length in windows of this many batches: neighbours pad each other little, and yet the
# first answers are no sample of short prompts only.
_WINDOW_BATCHES = 16


@dataclass(frozen=True)
class DistillReport:
    """What a run did. answers: of this run; before: found in the file; too_long: prompts left out."""

    out: Path
    answers: int
    before: int
    too_long: int
    tokens: int
    seconds: float

    def __str__(self) -> str:
        rate = self.tokens / max(self.seconds, 1e-9)
        parts = [f"{self.answers} answers with {self.tokens} tokens ({rate:.0f} tokens/s) in {self.out}"]
        if self.before:
            parts.append(f"{self.before} were there before")
        if self.too_long:
            parts.append(f"{self.too_long} prompts were too long")
        return ", ".join(parts)


@dataclass
class _Job:
    """One answer being written. states: the hidden state that decided each of its tokens."""

    prompt: Prompt
    sequence: Sequence
    states: list[Tensor] = field(default_factory=list)


def distill(config: DistillConfig, *, progress: bool = True) -> DistillReport:
    """Append the base model's own answers to `config.out`, and their hidden states to `hidden` beside it.

    Answers that are there already stay: a run that was killed goes on. Raises UserError for prompts that
    cannot be read, and for a file that was written by another model or with other settings.
    """
    prompts = read_prompts(config.prompts)[: config.limit]
    base = load(
        config.model,
        heads=None,
        engine=config.engine,
        device=config.device,
        dtype=config.dtype,
        progress=progress,
    )
    _claim(config, base)
    done = _answered(config, prompts)
    cache = HiddenCache(config.cache_folder, base.fingerprint, config.out.name) if config.hidden else None
    open_turns = [turn for prompt in prompts if (turn := _first_open(prompt, done)) is not None]
    distiller = Distiller(config, base, AnswerWriter(config.out, cache), open_turns)
    with JobProgress("answers", distiller.turns_left, enabled=progress) as bar:
        try:
            for answers, tokens in distiller.steps():
                bar.advance(answers, tokens)
        except KeyboardInterrupt:
            bar.say(f"stopped; what is finished is in {config.out}, and the same command goes on from there")
            raise
        finally:
            distiller.writer.flush()
        return DistillReport(
            config.out, distiller.finished, len(done), distiller.too_long, distiller.tokens, bar.seconds
        )


class Distiller:
    """The loop over a changing list of sequences: as one ends, the next prompt takes its place.

    prompts: the turns to be answered now; later turns follow their answers.
    """

    def __init__(
        self,
        config: DistillConfig,
        base: Medusa,
        writer: AnswerWriter,
        prompts: list[Prompt],
    ) -> None:
        self.config, self.base, self.engine, self.writer = config, base, base.engine, writer
        self.finished = self.too_long = self.tokens = 0
        # A prompt is one piece, so that each step gives each sequence a token.
        self._decoder = Decoder(base.engine, prefill_rows=config.max_prompt_tokens)
        self._queue = deque(self._in_order([job for prompt in prompts if (job := self._job(prompt))]))
        self._running: list[_Job] = []

    @property
    def turns_left(self) -> int:
        """Answers still to be written, later turns included."""
        return sum(1 + len(job.prompt.later) for job in [*self._queue, *self._running])

    def steps(self) -> Iterator[tuple[int, int]]:
        """Write all answers; yields (answers finished, tokens written) of each step."""
        while self._queue or self._running:
            self._refill()
            self._decoder.step([job.sequence for job in self._running])
            for job in self._running:
                if self.config.hidden:
                    job.states.append(torch.as_tensor(job.sequence.hidden).clone())
            ended = [job for job in self._running if job.sequence.finish_reason is not None]
            tokens = len(self._running)
            self._running = [job for job in self._running if job.sequence.finish_reason is None]
            for job in ended:
                self._finish(job)
            self.tokens += tokens
            self.finished += len(ended)
            self.writer.flush_if_due()
            yield len(ended), tokens

    def _refill(self) -> None:
        """Start several sequences at once where enough places are free: prompts run best together."""
        free = self.config.batch - len(self._running)
        if self._running and free < max(1, self.config.batch // 4):
            return
        for _ in range(min(free, len(self._queue))):
            self._running.append(self._queue.popleft())

    def _finish(self, job: _Job) -> None:
        sequence, prompt = job.sequence, job.prompt
        answer = self.base.tokenizer.decode(sequence.tokens)
        asked: JsonObject = {"messages": prompt.messages} if prompt.text is None else {"prompt": prompt.text}
        record = {
            "id": prompt.name,
            **asked,
            "prompt_ids": sequence.prompt,
            "answer_ids": sequence.tokens,
            "answer": answer,
            "finish_reason": sequence.finish_reason,
        }
        self.writer.add(record, torch.stack(job.states) if job.states else None)
        assert sequence.handle is not None
        self.engine.close(sequence.handle)
        if (later := prompt.after(answer)) is not None and (next_job := self._job(later)) is not None:
            self._queue.appendleft(next_job)

    def _job(self, prompt: Prompt) -> _Job | None:
        """A sequence for this turn; None where the prompt is too long."""
        ids = self._encode(prompt)
        room = self.base.context_length - len(ids)
        if len(ids) > self.config.max_prompt_tokens or room < 1:
            self.too_long += 1
            return None
        config = self.config
        sampling = SamplingParameters(temperature=config.temperature, top_p=config.top_p, seed=config.seed)
        sequence = Sequence(
            ids,
            sampling,
            max_tokens=min(config.max_tokens, room),
            stop_ids=self.base.tokenizer.eos_ids,
            choice=_choice(prompt),
        )
        return _Job(prompt, sequence)

    def _encode(self, prompt: Prompt) -> list[int]:
        tokenizer = self.base.tokenizer
        if tokenizer.has_chat_template:
            return tokenizer.chat(prompt.messages)
        if prompt.text is None or prompt.later:
            raise UserError(
                f"{self.base.name} has no chat template, and prompt {prompt.key} is a conversation;"
                " give prompts of one message, or a model for chat"
            )
        return tokenizer.encode(prompt.text)

    def _in_order(self, jobs: list[_Job]) -> Iterator[_Job]:
        window = _WINDOW_BATCHES * self.config.batch
        for start in range(0, len(jobs), window):
            yield from sorted(jobs[start : start + window], key=lambda job: len(job.sequence.prompt))


def _claim(config: DistillConfig, base: Medusa) -> None:
    """Note beside the answers who writes them; raises UserError if that was another model or recipe."""
    mine = {"fingerprint": base.fingerprint, **config.recipe()}
    path = config.record_path
    if path.is_file() and config.out.is_file() and config.out.stat().st_size:
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); give another out file") from error
        changed = [name for name in mine if earlier.get(name) != mine[name]]
        if changed:
            was, now = earlier.get(changed[0]), mine[changed[0]]
            raise UserError(
                f"{config.out} was written with {changed[0]} {was!r}, not {now!r};"
                " give the same settings to go on, or another out file"
            )
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"model": base.name, **mine}, indent=2) + "\n", encoding="utf-8")


def _answered(config: DistillConfig, prompts: list[Prompt]) -> dict[str, str]:
    """Answers in the file, by id; what a kill left of a last line is cut off.

    Raises UserError when an answer there belongs to another prompt of the same id.
    """
    if not config.out.is_file():
        config.out.parent.mkdir(parents=True, exist_ok=True)
        return {}
    cut_torn_line(config.out)
    asked = {str(prompt.key): prompt.text for prompt in prompts}
    done: dict[str, str] = {}
    for number, record in read_records(config.out):
        key, text = str(record.get("id")), record.get("prompt")
        if None not in (text, asked.get(key)) and text != asked[key]:
            raise UserError(
                f"{config.out}, line {number}: answer {key} belongs to another prompt than {config.prompts}"
                " has there; give another out file"
            )
        done[key] = str(record.get("answer", ""))
    return done


def _first_open(prompt: Prompt, done: dict[str, str]) -> Prompt | None:
    """The prompt's first turn without an answer."""
    turn: Prompt | None = prompt
    while turn is not None and str(turn.name) in done:
        turn = turn.after(done[str(turn.name)])
    return turn


def _choice(prompt: Prompt) -> int:
    """A number that depends on the id alone: a prompt has its own random numbers in any batch."""
    return int.from_bytes(hashlib.sha256(str(prompt.name).encode()).digest()[:4])
