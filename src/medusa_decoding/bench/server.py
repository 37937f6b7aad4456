"""Measure an OpenAI-compatible server under load, with speculation and without where it can be told so.

Each question is a conversation: its messages are sent one after the other, each with the server's own answers
before it. At each level of load all questions run with every variant, whose order alternates from level to
level. A server that knows the extension `speculative` answers with a `medusa` object; others are measured as
they are.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from medusa_decoding.bench.server_config import ServerBenchConfig
from medusa_decoding.bench.streaming import Answer, Json, RequestFailed, StreamingClient
from medusa_decoding.bench.suite import Question
from medusa_decoding.distill.endpoint import KEY_VARIABLE, served_models
from medusa_decoding.errors import UserError

WARM_UP_TOKENS = 8
_MALFORMED = {400, 422}
PLAIN, MEDUSA, AS_SERVED = "plain", "medusa", "as served"

Result = TypeVar("Result")
Variants = dict[str, str | None]
"""What is compared: a name, and the value of `speculative` (None: the field is left out)."""
Turn = tuple[int, int]
"""A question's place in the suite and the turn, both counted from 0."""
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Load:
    """Either so many conversations at a time, or so many begun per second."""

    concurrency: int | None = None
    rate: float | None = None


@dataclass
class Run:
    """All questions at one level of load with one variant. failures: why turns got no answer."""

    load: Load
    variant: str
    answers: dict[Turn, Answer] = field(default_factory=dict)
    failures: dict[Turn, str] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Written by the server."""
        return sum(answer.tokens for answer in self.answers.values())

    @property
    def seconds(self) -> float:
        """From the first request to the last text."""
        answers = self.answers.values()
        return max(one.last for one in answers) - min(one.sent for one in answers) if answers else 0.0


def loads_of(config: ServerBenchConfig) -> list[Load]:
    """The levels that a config asks for."""
    if config.rate is not None:
        return [Load(rate=config.rate)]
    return [Load(concurrency=number) for number in config.concurrency]


def model_at(config: ServerBenchConfig) -> str:
    """The server's name for the model: the one given, or the only one it has. Raises UserError."""
    if config.model is not None:
        return config.model
    names = served_models(config.url, config.request_timeout, "MODEL")
    if len(names) != 1:
        raise UserError(f"{config.url} has the models {', '.join(names[:10]) or 'none'}; name one, as MODEL")
    return names[0]


def variants_at(config: ServerBenchConfig, model: str, question: Question) -> Variants:
    """What can be compared, seen from short answers, which warm the server up as well. Raises UserError."""
    return asyncio.run(_with_client(config, model, lambda client: _variants(client, config, question)))


def bench_server(
    config: ServerBenchConfig,
    model: str,
    variants: Variants,
    questions: Sequence[Question],
    advance: Advance = lambda *_: None,
) -> list[Run]:
    """Measure; `advance` is called with the turns and tokens that were settled.

    Raises UserError where the server answered nothing in some run.
    """

    async def all_runs(client: StreamingClient) -> list[Run]:
        runs = list[Run]()
        for number, load in enumerate(loads_of(config)):
            for name in list(variants)[:: -1 if number % 2 else 1]:
                run = Run(load, name)
                await _Loader(client, run, variants[name], advance).run(questions, config.seed)
                _check(run, config)
                runs.append(run)
        return runs

    return asyncio.run(_with_client(config, model, all_runs))


async def _with_client(
    config: ServerBenchConfig, model: str, work: Callable[[StreamingClient], Awaitable[Result]]
) -> Result:
    client = StreamingClient(config, model)
    try:
        return await work(client)
    finally:
        await client.close()


async def _variants(client: StreamingClient, config: ServerBenchConfig, question: Question) -> Variants:
    messages = [{"role": "user", "content": question.turns[0]}]
    try:
        try:
            answer = await client.ask(messages, "off", WARM_UP_TOKENS)
        except RequestFailed as error:
            if error.status not in _MALFORMED:
                raise
            await client.ask(messages, None, WARM_UP_TOKENS)
            return {AS_SERVED: None}
        if answer.steps is None:
            return {AS_SERVED: None}
        await client.ask(messages, "auto", WARM_UP_TOKENS)
    except RequestFailed as error:
        raise UserError(_unusable(config, error)) from None
    return {PLAIN: "off", MEDUSA: "auto"}


def _unusable(config: ServerBenchConfig, error: RequestFailed) -> str:
    if error.status in (401, 403):
        return f"{config.url} refuses the key; set the environment variable {KEY_VARIABLE}"
    return f"{config.url} gives no answer ({error}); check the address (it ends in /v1 mostly) and the model"


def _check(run: Run, config: ServerBenchConfig) -> None:
    if not run.answers:
        reason = next(iter(run.failures.values()))
        raise UserError(
            f"{config.url} answered none of {len(run.failures)} requests ({reason}); give less load"
        )


class _Loader:
    """Puts one level of load on a server."""

    def __init__(self, client: StreamingClient, run: Run, speculative: str | None, advance: Advance) -> None:
        self._client, self._run, self._speculative, self._advance = client, run, speculative, advance

    async def run(self, questions: Sequence[Question], seed: int) -> None:
        load = self._run.load
        async with asyncio.TaskGroup() as tasks:
            if load.concurrency is not None:
                waiting = deque(enumerate(questions))
                for _ in range(min(load.concurrency, len(questions))):
                    tasks.create_task(self._work(waiting))
            else:
                assert load.rate is not None
                gaps = random.Random(seed)
                for place, question in enumerate(questions):
                    tasks.create_task(self._converse(place, question))
                    await asyncio.sleep(gaps.expovariate(load.rate))

    async def _work(self, waiting: deque[tuple[int, Question]]) -> None:
        while waiting:
            await self._converse(*waiting.popleft())

    async def _converse(self, place: int, question: Question) -> None:
        messages = list[Json]()
        for number, text in enumerate(question.turns):
            messages.append({"role": "user", "content": text})
            turn = (place, number)
            try:
                answer = await self._client.ask(messages, self._speculative)
            except RequestFailed as error:
                self._run.failures[turn] = str(error)
                # What follows in this conversation cannot be asked.
                self._advance(len(question.turns) - number, 0)
                return
            self._run.answers[turn] = answer
            messages.append({"role": "assistant", "content": answer.text})
            self._advance(1, answer.tokens)
