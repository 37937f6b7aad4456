"""A base model on this machine answers prompts, many at once."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medusa_decoding.decoding import Decoder, SamplingParameters, Sequence
from medusa_decoding.distill.answers import JsonObject
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.prompts import Prompt
from medusa_decoding.distill.writer import AnswerWriter
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.models import Tokenizer

# Prompts are sorted by length in windows of this many batches: neighbours pad each other little, and yet the
# first answers are no sample of short prompts only.
_WINDOW_BATCHES = 16


@dataclass
class _Job:
    """One answer being written. states: the hidden state that decided each of its tokens."""

    prompt: Prompt
    sequence: Sequence
    states: list[Tensor] = field(default_factory=list)


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
        """Write all answers; yields (answers settled, tokens written) of each step."""
        while self._queue or self._running:
            self._refill()
            self._decoder.step([job.sequence for job in self._running])
            for job in self._running:
                if self.config.hidden:
                    job.states.append(torch.as_tensor(job.sequence.hidden).clone())
            ended = [job for job in self._running if job.sequence.finish_reason is not None]
            tokens = len(self._running)
            self._running = [job for job in self._running if job.sequence.finish_reason is None]
            self.tokens += tokens
            settled = sum(self._finish(job) for job in ended)
            self.writer.flush_if_due()
            yield settled, tokens

    def _refill(self) -> None:
        """Start several sequences at once where enough places are free: prompts run best together."""
        free = self.config.batch - len(self._running)
        if self._running and free < max(1, self.config.batch // 4):
            return
        for _ in range(min(free, len(self._queue))):
            self._running.append(self._queue.popleft())

    def _finish(self, job: _Job) -> int:
        """Hand the answer on and ask the next turn; returns how many answers are settled with it."""
        sequence, prompt = job.sequence, job.prompt
        assert sequence.handle is not None and sequence.finish_reason is not None
        self.engine.close(sequence.handle)
        answer = self.base.tokenizer.decode(sequence.tokens)
        record = record_of(prompt, sequence.prompt, sequence.tokens, answer, sequence.finish_reason)
        if not self.writer.add(record, torch.stack(job.states) if job.states else None):
            return 1 + len(prompt.later)
        self.finished += 1
        later = prompt.after(answer)
        if later is None:
            return 1
        if (next_job := self._job(later)) is None:
            return 1 + len(prompt.later)
        self._queue.appendleft(next_job)
        return 1

    def _job(self, prompt: Prompt) -> _Job | None:
        """A sequence for this turn; None where the prompt is too long."""
        ids = prompt_ids(self.base.tokenizer, self.base.name, prompt)
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
            choice=choice_of(str(prompt.name)),
        )
        return _Job(prompt, sequence)

    def _in_order(self, jobs: list[_Job]) -> Iterator[_Job]:
        window = _WINDOW_BATCHES * self.config.batch
        for start in range(0, len(jobs), window):
            yield from sorted(jobs[start : start + window], key=lambda job: len(job.sequence.prompt))


def prompt_ids(tokenizer: Tokenizer, model: str, prompt: Prompt) -> list[int]:
    """The ids of a prompt in the model's chat template, if it has one."""
    if tokenizer.has_chat_template:
        return tokenizer.chat(prompt.messages)
    if prompt.text is None or prompt.later:
        raise UserError(
            f"{model} has no chat template, and prompt {prompt.key} is a conversation;"
            " give prompts of one message, or a model for chat"
        )
    return tokenizer.encode(prompt.text)


def record_of(
    prompt: Prompt, prompt_ids: list[int], answer_ids: list[int], answer: str, finish_reason: str
) -> JsonObject:
    """The answer's line in the answers file."""
    belongs: JsonObject = {} if prompt.name == prompt.key else {"prompt_id": prompt.key}
    asked: JsonObject = {"messages": prompt.messages} if prompt.text is None else {"prompt": prompt.text}
    return {
        "id": prompt.name,
        **belongs,
        **asked,
        "prompt_ids": prompt_ids,
        "answer_ids": answer_ids,
        "answer": answer,
        "finish_reason": finish_reason,
    }


def choice_of(name: str) -> int:
    """A number that depends on the name alone: a prompt has its own random numbers in any batch."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
