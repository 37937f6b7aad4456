"""`medusa bench --against`: the whole run, from prompts to the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medusa_decoding.bench.peers import ours
from medusa_decoding.bench.peers.config import AgainstConfig
from medusa_decoding.bench.peers.opening import Opened, Opener
from medusa_decoding.bench.peers.quality import perplexity, read_quality_text
from medusa_decoding.bench.peers.race import Runner, Task, race, runs_in
from medusa_decoding.bench.peers.result import Prompt as PromptRecord
from medusa_decoding.bench.peers.result import SkippedPrompt, Text
from medusa_decoding.bench.peers.side import PeerFailed, Prompt
from medusa_decoding.bench.run import NOTHING_GUESSES
from medusa_decoding.bench.suite import Question
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.models import Source

Said = Callable[[str], None]


class Progress(Protocol):
    """What is told of the race."""

    def advance(self, units: int, tokens: int) -> None:
        """So many runs and tokens are done."""


@dataclass
class Measured:
    """All that a result is made from. perplexities: by `About.weights_key`."""

    text: Text
    prompts: list[PromptRecord] = field(default_factory=list)
    skipped_prompts: list[SkippedPrompt] = field(default_factory=list)
    runners: list[Runner] = field(default_factory=list)
    perplexities: dict[str, float | None] = field(default_factory=dict)
    opened: Opened = field(default_factory=Opened)


def measure(
    medusa: Medusa,
    source: Source,
    config: AgainstConfig,
    questions: Sequence[Question],
    weights: str,
    threads: int,
    say: Said,
    racing: Callable[[int], Progress],
) -> Measured:
    """Open the peers, read the text with each, race them over the questions' first messages.

    weights: how `medusa` holds its own, in a word. say: gets a line before each part that takes its time.
    racing: gets the number of runs, returns what is told of them. Raises UserError where nothing guesses or
    no prompt can be used.
    """
    if not medusa.drafts:
        raise UserError(NOTHING_GUESSES.format(medusa.name))
    text, read = read_quality_text(config.text, medusa)
    measured = Measured(text)
    say("the base model's own answers, whose length every side writes ...")
    tasks = _tasks(medusa, config, questions, measured)
    context = max(len(read), *(len(task.prompt.ids) + len(task.answer) for task in tasks))
    # Room for a warm-up, and for guesses beyond the end.
    opener = Opener(medusa, source, config, weights, threads, context + 64)
    try:
        _open(opener, tasks[0].prompt, measured, say)
        _read(read, measured, say)
        measured.runners = [
            Runner(side, config.peer_limit if side.about.slow else len(tasks))
            for side in measured.opened.sides
        ]
        race(measured.runners, tasks, racing(runs_in(measured.runners, tasks)).advance)
    finally:
        measured.opened.close()
    return measured


def _tasks(
    medusa: Medusa, config: AgainstConfig, questions: Sequence[Question], measured: Measured
) -> list[Task]:
    tasks = list[Task]()
    for question in questions:
        ids = medusa.encode(question.turns[0])
        if len(ids) + config.max_tokens > medusa.context_length:
            reason = f"{len(ids)} tokens and the answer do not fit the context of {medusa.context_length}"
        else:
            answer = medusa.generate(ids, max_tokens=config.max_tokens, speculative=False).tokens
            reason = "the answer has a single token" if len(answer) < 2 else ""
        if reason:
            measured.skipped_prompts.append(SkippedPrompt(question_id=question.question_id, reason=reason))
            continue
        tasks.append(Task(Prompt(question.turns[0], ids), answer))
        measured.prompts.append(
            PromptRecord(
                question_id=question.question_id,
                category=question.category,
                prompt_tokens=len(ids),
                tokens=len(answer),
            )
        )
    if not tasks:
        raise UserError(f"no prompt of the suite can be used: {measured.skipped_prompts[0].reason}")
    return tasks


def _open(opener: Opener, prompt: Prompt, measured: Measured, say: Said) -> None:
    opened = measured.opened
    opened.open("medusa", [ours.subject(opener.medusa, opener.weights)], prompt)
    for peer in opener.config.against:
        say(f"{peer}: loading ...")
        opened.open(peer, opener.sides(peer), prompt)


def _read(tokens: Sequence[int], measured: Measured, say: Said) -> None:
    """The perplexity of each kind of weights; a side that fails here is a skipped one."""
    for side in measured.opened.sides:
        key = side.about.weights_key
        if key not in measured.perplexities:
            say(f"{side.about.name}: perplexity of {len(tokens)} tokens ...")
            try:
                measured.perplexities[key] = perplexity(side, tokens)
            except PeerFailed as error:
                measured.perplexities[key] = None
                say(f"{side.about.name}: no perplexity ({error})")
