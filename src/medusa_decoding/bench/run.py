"""Run a suite: every prompt with both variants, one right after the other, in alternating order.

What is compared is one thing: the same loop, engine and settings, with guesses or without. Both variants
of a turn see the same prompt: the history of later turns holds the answers of the plain variant. The prompt
of each turn is prefilled anew and timed apart; the token that comes out of the prefill belongs to it and is
not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from medusa_decoding.bench.compare import Difference, first_difference
from medusa_decoding.bench.suite import Question
from medusa_decoding.decoding import LOOKUP
from medusa_decoding.errors import UserError
from medusa_decoding.generation import GenerationOptions, Medusa
from medusa_decoding.generation.loops import is_loop

WARM_UP_TOKENS = 8
NOTHING_GUESSES = (
    "nothing guesses for {}: give heads with --heads (train some with 'medusa train'), or leave out --draft"
)


@dataclass
class Counts:
    """Decoding steps and what they gave, the prefill not included. Times are in seconds.

    nodes: rows of all trees, the roots included. accepted: per head, its guesses that became text. looked_up:
    prompt lookup's that did.
    """

    tokens: int = 0
    steps: int = 0
    nodes: int = 0
    seconds: float = 0.0
    accepted: list[int] = field(default_factory=list)
    looked_up: int = 0

    def add(self, other: Counts) -> None:
        """Add another text's counts."""
        self.tokens += other.tokens
        self.steps += other.steps
        self.nodes += other.nodes
        self.seconds += other.seconds
        self.looked_up += other.looked_up
        heads = max(len(self.accepted), len(other.accepted))
        both = (counts + [0] * (heads - len(counts)) for counts in (self.accepted, other.accepted))
        self.accepted = [sum(pair) for pair in zip(*both, strict=True)]


@dataclass(frozen=True)
class Mark:
    """Running totals after one step."""

    tokens: int
    nodes: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """One text as it was written: all its tokens, who guessed each, and a mark per decoding step."""

    text: str
    tokens: list[int]
    sources: list[int]
    marks: list[Mark]
    prompt_tokens: int
    prefill_seconds: float

    def counts(self, length: int) -> Counts:
        """Counts of the first `length` tokens.

        A step that reaches beyond them counts whole in time, but only with its tokens up to there: as if
        the text had been limited to that length.
        """
        wanted = max(length - 1, 0)
        steps = next(
            (place for place, mark in enumerate(self.marks, 1) if mark.tokens >= wanted), len(self.marks)
        )
        if not wanted or not steps:
            return Counts()
        last, sources = self.marks[steps - 1], self.sources[1:length]
        accepted = [sources.count(head) for head in range(1, max(sources, default=0) + 1)]
        return Counts(
            min(wanted, last.tokens), steps, last.nodes, last.seconds, accepted, sources.count(LOOKUP)
        )


@dataclass(frozen=True)
class Comparison:
    """Both variants of one turn. turn: counted from 0."""

    question: Question
    turn: int
    plain: Run
    medusa: Run
    difference: Difference | None

    @property
    def length(self) -> int:
        """How many tokens count of both: those of the shorter text."""
        return min(len(self.plain.tokens), len(self.medusa.tokens))

    @property
    def loops(self) -> bool:
        """Whether the base model's own answer, the plain text, says the same over and over."""
        return is_loop(self.plain.tokens)


@dataclass(frozen=True)
class Skipped:
    """A turn that was not run, and why."""

    question: Question
    turn: int
    reason: str


Progress = Callable[[], None]


def run_suite(
    medusa: Medusa,
    questions: Sequence[Question],
    options: GenerationOptions,
    advance: Progress = lambda: None,
) -> tuple[list[Comparison], list[Skipped]]:
    """Run all turns of all questions; `advance` is called after each turn.

    Raises UserError where nothing guesses that could be measured, or where no prompt fits the context.
    """
    if not medusa.drafts:
        raise UserError(NOTHING_GUESSES.format(medusa.name))
    warm_up(medusa, questions[0].turns[0])
    done: list[Comparison] = []
    skipped: list[Skipped] = []
    for question in questions:
        for outcome in _turns(medusa, question, options, medusa_first=len(done) % 2 == 1):
            if isinstance(outcome, Comparison):
                done.append(outcome)
            else:
                skipped.append(outcome)
            advance()
    if not done:
        raise UserError(f"no prompt of the suite fits the model's context of {medusa.context_length} tokens")
    return done, skipped


def warm_up(medusa: Medusa, prompt: str) -> None:
    """Decode a little with both variants, so that neither pays for what happens only once."""
    tokens = medusa.encode(prompt)[: max(1, medusa.context_length - WARM_UP_TOKENS)]
    for speculative in (False, True):
        medusa.generate(tokens, max_tokens=WARM_UP_TOKENS, ignore_eos=True, speculative=speculative)


def run_once(medusa: Medusa, prompt: Sequence[int], options: GenerationOptions, *, speculative: bool) -> Run:
    """Write one text and note each step."""
    stream = medusa.stream(prompt, options, speculative=speculative)
    statistics, marks = stream.sequence.statistics, list[Mark]()
    for _ in stream:
        if statistics.steps > len(marks):
            marks.append(Mark(statistics.tokens, statistics.nodes, statistics.decode_seconds))
    result = stream.result
    return Run(
        result.text,
        result.tokens,
        result.sources,
        marks,
        statistics.prompt_tokens,
        statistics.prefill_seconds,
    )


def _turns(
    medusa: Medusa, question: Question, options: GenerationOptions, medusa_first: bool
) -> Iterator[Comparison | Skipped]:
    messages: list[dict[str, Any]] = []
    for turn, text in enumerate(question.turns):
        messages.append({"role": "user", "content": text})
        prompt = _prompt(medusa, messages)
        if len(prompt) >= medusa.context_length:
            reason = f"{len(prompt)} tokens do not fit the context of {medusa.context_length}"
            yield from (Skipped(question, later, reason) for later in range(turn, len(question.turns)))
            return
        comparison = _compare(medusa, question, turn, prompt, options, medusa_first != (turn % 2 == 1))
        messages.append({"role": "assistant", "content": comparison.plain.text})
        yield comparison


def _compare(
    medusa: Medusa,
    question: Question,
    turn: int,
    prompt: list[int],
    options: GenerationOptions,
    medusa_first: bool,
) -> Comparison:
    runs = {
        speculative: run_once(medusa, prompt, options, speculative=speculative)
        for speculative in ((True, False) if medusa_first else (False, True))
    }
    difference = first_difference(medusa.engine, prompt, runs[False].tokens, runs[True].tokens)
    return Comparison(question, turn, runs[False], runs[True], difference)


def _prompt(medusa: Medusa, messages: list[dict[str, Any]]) -> list[int]:
    """The conversation's tokens; for a model without chat template, its messages one below the other."""
    if medusa.tokenizer.has_chat_template:
        return medusa.encode(messages)
    return medusa.encode("\n\n".join(str(message["content"]) for message in messages), raw=True)
