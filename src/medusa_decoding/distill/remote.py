"""A model behind an endpoint answers prompts, many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from medusa_decoding.distill.answers import JsonObject
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.distiller import choice_of, prompt_ids, record_of
from medusa_decoding.distill.endpoint import Completion, Endpoint, Refused
from medusa_decoding.distill.prompts import Prompt
from medusa_decoding.distill.turns import turn_ids
from medusa_decoding.distill.writer import AnswerWriter
from medusa_decoding.errors import UserError
from medusa_decoding.models import Tokenizer

Result = TypeVar("Result")

# Answers that wait for one before them: for each place, one being written and one ready.
_WINDOW = 2
# Refusals before any answer after which the fault is not the prompts'.
_REFUSALS = 8
_POLL_SECONDS = 1.0


@dataclass
class _Asked:
    prompt: Prompt
    ids: list[int]
    answer: Future[Completion]


class RemoteDistiller:
    """Asks the endpoint for `concurrency` answers at a time; writes them in the order of the prompts.

    prompts: the turns to be answered now; later turns follow their answers. tokenizer: the model's, which
    turns the answers into ids.
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
        self._refused: list[tuple[Prompt, Refused]] = []
        self._queue = deque(turn for prompt in prompts if (turn := self._fitting(prompt)) is not None)
        self._asked: deque[_Asked] = deque()

    @property
    def turns_left(self) -> int:
        """Answers still to be written, later turns included."""
        waiting = [*(prompt for prompt, _ in self._queue), *(asked.prompt for asked in self._asked)]
        return sum(1 + len(prompt.later) for prompt in waiting)

    def steps(self) -> Iterator[tuple[int, int]]:
        """Write all answers; yields (answers settled, tokens written) of each step."""
        with _Background() as background:
            endpoint = background.run(_made(self._config, self._model))
            try:
                while self._queue or self._asked:
                    self._ask(endpoint, background)
                    yield self._take()
                    self._writer.flush_if_due()
                if self._refused:
                    self._give_up()
            finally:
                self._drain()
                background.run(endpoint.close())

    def _ask(self, endpoint: Endpoint, background: _Background) -> None:
        while self._queue and len(self._asked) < _WINDOW * self._config.concurrency:
            prompt, ids = self._queue.popleft()
            body: JsonObject = {"messages": prompt.messages}
            if not self._tokenizer.has_chat_template:
                body = {"prompt": prompt.text}
            # Each answer has a seed of its own, which depends on the prompt's name alone.
            seed = choice_of(f"{self._config.seed} {prompt.name}") >> 1
            self._asked.append(_Asked(prompt, ids, background.submit(endpoint.complete(body, seed))))

    def _take(self) -> tuple[int, int]:
        """Wait a little for the answer whose turn it is."""
        first = self._asked[0]
        try:
            completion = first.answer.result(_POLL_SECONDS)
        except TimeoutError:
            return 0, 0
        except Refused as error:
            self._asked.popleft()
            return self._refuse(first.prompt, error), 0
        self._asked.popleft()
        return self._finish(first, completion)

    def _finish(self, asked: _Asked, completion: Completion) -> tuple[int, int]:
        prompt, text = asked.prompt, completion.text
        said = [*prompt.messages, {"role": "assistant", "content": text}]
        ids = turn_ids(self._tokenizer, said, asked.ids, ended=completion.finish_reason == "stop")
        self.tokens += len(ids)
        record = record_of(prompt, asked.ids, ids, text, completion.finish_reason)
        if not self._writer.add(record, None):
            return 1 + len(prompt.later), len(ids)
        self.finished += 1
        self._note_refusals()
        later = prompt.after(text)
        if later is None:
            return 1, len(ids)
        if (turn := self._fitting(later)) is None:
            return 1 + len(prompt.later), len(ids)
        self._queue.appendleft(turn)
        return 1, len(ids)

    def _refuse(self, prompt: Prompt, error: Refused) -> int:
        """Refusals are noted once an answer has shown that the fault is the prompt's own."""
        self._refused.append((prompt, error))
        self._note_refusals()
        if len(self._refused) >= _REFUSALS:
            self._give_up()
        return 1 + len(prompt.later)

    def _note_refusals(self) -> None:
        if self.finished:
            for prompt, error in self._refused:
                self._writer.drop(prompt.name, "refused by the endpoint", str(error))
            self._refused = []

    def _give_up(self) -> None:
        raise UserError(
            f"{self._config.endpoint} refuses every request ({self._refused[-1][1]});"
            " check the model's name and the settings"
        )

    def _drain(self) -> None:
        """Keep the answers that are there when something stops the work."""
        for asked in self._asked:
            if not asked.answer.cancel() and asked.answer.exception() is None:
                self._finish(asked, asked.answer.result())
        self._asked.clear()

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
