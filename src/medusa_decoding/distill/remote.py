"""A model behind an endpoint answers prompts, many at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeVar

from medusa_decoding.distill.answers import JsonObject
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.distiller import choice_of, prompt_ids, record_of
from medusa_decoding.distill.endpoint import Completion, Endpoint, Refused
from medusa_decoding.distill.prompts import Prompt
from medusa_decoding.distill.turns import turn_ids
from medusa_decoding.distill.waiting import WaitingAnswers
from medusa_decoding.distill.writer import AnswerWriter
from medusa_decoding.errors import UserError
from medusa_decoding.generation.loops import is_loop
from medusa_decoding.models import Tokenizer

Result = TypeVar("Result")

# Conversations begun at a time, for each place: one is being asked, others wait for a slow one before them.
_WINDOW = 4
# Refusals before any answer after which the fault is not the prompts'.
_REFUSALS = 8
_POLL_SECONDS = 1.0
# Answers may cost money: a kill loses no more than those of this time.
_KEEP_SECONDS = 1.0


@dataclass
class _Refusal:
    prompt: Prompt
    error: Refused


@dataclass
class _Conversation:
    """A prompt's turns while they are answered.

    prompt, ids: the turn that is asked; answer: its answer to come, None after the last turn. settled: what
    became of the turns so far, not yet written.
    """

    prompt: Prompt
    ids: list[int]
    answer: Future[Completion] | None
    settled: deque[JsonObject | _Refusal] = field(default_factory=deque)


class RemoteDistiller:
    """Asks the endpoint for `concurrency` answers at a time; writes them in the order of the prompts.

    Conversations go on independently of each other, and the turns of each stand together. prompts: the turns
    to be answered now; later turns follow their answers. tokenizer: the model's, which turns the answers into
    ids.
    """

    def __init__(
        self,
        config: DistillConfig,
        endpoint_model: str,
        tokenizer: Tokenizer,
        writer: AnswerWriter,
        prompts: list[Prompt],
    ) -> None:
        self._config, self._model, self._tokenizer, self._writer = config, endpoint_model, tokenizer, writer
        self.finished = self.too_long = self.tokens = 0
        self._refused: list[_Refusal] = []
        self._queue = deque(turn for prompt in prompts if (turn := self._fitting(prompt)) is not None)
        self._open: deque[_Conversation] = deque()
        self._waiting = WaitingAnswers(config.waiting_path)
        self._kept = time.monotonic()

    @property
    def turns_left(self) -> int:
        """Answers still to be written, later turns included."""
        asked = [*(prompt for prompt, _ in self._queue), *(one.prompt for one in self._open if one.answer)]
        return sum(1 + len(prompt.later) for prompt in asked)

    def steps(self) -> Iterator[tuple[int, int]]:
        """Write all answers; yields (answers settled, tokens written) of each step."""
        with _Background() as background:
            endpoint = background.run(_made(self._config, self._model))
            try:
                while self._queue or self._open:
                    yield self._step(lambda prompt: background.submit(self._asking(endpoint, prompt)))
                if self._refused:
                    self._give_up()
            finally:
                self._stop()
                background.run(endpoint.close())
        self._writer.flush()
        self._waiting.clear()

    def _step(self, ask: Callable[[Prompt], Future[Completion]]) -> tuple[int, int]:
        """Ask as much as there is room for, wait a little for answers, write those whose turn it is."""
        while self._queue and len(self._open) < _WINDOW * self._config.concurrency:
            self._open.append(self._begun(*self._queue.popleft(), ask))
        wait([one.answer for one in self._open if one.answer], _POLL_SECONDS, FIRST_COMPLETED)
        before, settled = self.tokens, 0
        for conversation in self._open:
            while conversation.answer is not None and conversation.answer.done():
                settled += self._settle(conversation, ask)
        self._write()
        if time.monotonic() - self._kept >= _KEEP_SECONDS:
            self._keep()
        return settled, self.tokens - before

    def _begun(
        self, prompt: Prompt, ids: list[int], ask: Callable[[Prompt], Future[Completion]]
    ) -> _Conversation:
        """The turn, asked unless an earlier run has its answer."""
        kept = self._waiting.answer_to(prompt.name, ids)
        if kept is None:
            return _Conversation(prompt, ids, ask(prompt))
        answer: Future[Completion] = Future()
        answer.set_result(Completion(kept["answer"], kept["finish_reason"]))
        return _Conversation(prompt, ids, answer)

    def _asking(self, endpoint: Endpoint, prompt: Prompt) -> Coroutine[Any, Any, Completion]:
        body: JsonObject = {"messages": prompt.messages}
        if not self._tokenizer.has_chat_template:
            body = {"prompt": prompt.text}
        # Each answer has a seed of its own, which depends on the prompt's name alone.
        return endpoint.complete(body, choice_of(f"{self._config.seed} {prompt.name}") >> 1)

    def _settle(self, conversation: _Conversation, ask: Callable[[Prompt], Future[Completion]] | None) -> int:
        """Take the answer that is there, and ask the next turn; returns how many answers are settled with it.

        ask: None where no more is asked.
        """
        assert conversation.answer is not None
        prompt = conversation.prompt
        try:
            completion = conversation.answer.result()
        except Refused as error:
            conversation.settled.append(_Refusal(prompt, error))
            conversation.answer = None
            return 1 + len(prompt.later)
        conversation.answer = None
        record = self._record(prompt, conversation.ids, completion)
        conversation.settled.append(record)
        later = None if is_loop(record["answer_ids"]) else prompt.after(completion.text)
        turn = self._fitting(later) if later is not None and ask is not None else None
        if turn is None or ask is None:
            return 1 + len(prompt.later)
        begun = self._begun(*turn, ask)
        conversation.prompt, conversation.ids, conversation.answer = begun.prompt, begun.ids, begun.answer
        return 1

    def _record(self, prompt: Prompt, asked: list[int], completion: Completion) -> JsonObject:
        said = [*prompt.messages, {"role": "assistant", "content": completion.text}]
        ids = turn_ids(self._tokenizer, said, asked, ended=completion.finish_reason == "stop")
        self.tokens += len(ids)
        return record_of(prompt, asked, ids, completion.text, completion.finish_reason)

    def _write(self) -> None:
        """Hand on what is settled, up to the first turn that is not."""
        while self._open:
            first = self._open[0]
            while first.settled:
                one = first.settled.popleft()
                if isinstance(one, _Refusal):
                    self._refuse(one)
                elif self._writer.add(one, None):
                    self.finished += 1
                    self._note_refusals()
            if first.answer is not None:
                return
            self._open.popleft()

    def _keep(self) -> None:
        """Put all answers that are there on the disk."""
        self._writer.flush()
        self._waiting.keep(
            one for waiting in self._open for one in waiting.settled if not isinstance(one, _Refusal)
        )
        self._kept = time.monotonic()

    def _stop(self) -> None:
        """Keep the answers that are there when something stops the work."""
        for conversation in self._open:
            answer = conversation.answer
            if answer is not None and not answer.cancel() and answer.exception() is None:
                self._settle(conversation, None)
        # That the endpoint refuses everything has been said then.
        with suppress(UserError):
            self._write()
        self._keep()

    def _refuse(self, refusal: _Refusal) -> None:
        """Refusals are noted once an answer has shown that the fault is the prompt's own."""
        self._refused.append(refusal)
        self._note_refusals()
        if len(self._refused) >= _REFUSALS:
            self._give_up()

    def _note_refusals(self) -> None:
        if self.finished:
            for one in self._refused:
                self._writer.drop(one.prompt.name, "refused by the endpoint", str(one.error))
            self._refused = []

    def _give_up(self) -> None:
        raise UserError(
            f"{self._config.endpoint} refuses every request ({self._refused[-1].error});"
            " check the model's name and the settings"
        )

    def _fitting(self, prompt: Prompt) -> tuple[Prompt, list[int]] | None:
        """The prompt with its ids; None where it is too long."""
        ids = prompt_ids(self._tokenizer, self._config.model, prompt)
        if len(ids) > self._config.max_prompt_tokens:
            self.too_long += 1
            return None
        return prompt, ids


class _Background:
    """An event loop in a thread of its own: the caller may have one already, and may be interrupted."""

    def __enter__(self) -> _Background:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.submit(work).result()


async def _made(config: DistillConfig, model: str) -> Endpoint:
    return Endpoint(config, model)
