"""What `medusa bench --against` writes: one JSON object, which tables and pictures are made from.

Speeds are tokens per second of decoding, the prompt and the token that comes out of it not counted. A figure
over prompts is a median with its 95 % interval (`Estimate`). Ratios are medusa's tokens per second over the
side's, prompt by prompt, over the prompts that both wrote: 3.0 says that medusa is three times as fast.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

KIND = "against"
SUBJECT = "medusa"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Estimate(_Record):
    """A median over prompts. low, high: its 95 % bootstrap interval, widened by the machine's drift. prompts:
    how many it is of.
    """

    median: float
    low: float
    high: float
    prompts: int


class Prompt(_Record):
    """One prompt. prompt_tokens: its length. tokens: the length of the base model's own answer, which every
    side writes; the first of them comes out of the prefill.
    """

    question_id: int | str
    category: str
    prompt_tokens: int
    tokens: int


class PromptRun(_Record):
    """What a side took for one prompt.

    prompt: place in `AgainstResult.prompts`. tokens, seconds: of decoding, those that came out of the prefill
    not counted. prefill_seconds: until the first token was there. identical: whether the text is the base
    model's own on this project's engine, token by token; None where tokens are not known.
    """

    prompt: int
    tokens: int
    seconds: float
    prefill_seconds: float
    identical: bool | None = None

    @property
    def tokens_per_second(self) -> float:
        """Of decoding."""
        return self.tokens / self.seconds


class CategoryFigures(_Record):
    """A side's figures in one category of the suite. ratio: None for medusa itself."""

    tokens_per_second: Estimate
    ratio: Estimate | None


class SideResult(_Record):
    """One way to decode.

    name: unique in the result, such as "llama.cpp Q8_0"; the first side is "medusa". peer: what was asked for
    by `--against`, such as "llama.cpp"; "medusa" for the first. description: program and file in words.
    weights: how they are held, such as "int8" or "Q4_0". perplexity: of these weights on the result's text;
    None where it cannot be asked for. versions: of the packages that did the work.
    prefill_tokens_per_second: of the prompt. acceleration_rate: tokens per step, where the side tells its
    steps. repeats: the first prompts once more, at the end. failure: why it wrote fewer prompts than it
    should have; None where it did not fail.
    """

    name: str
    peer: str
    description: str
    weights: str
    versions: dict[str, str]
    perplexity: float | None
    tokens_per_second: Estimate
    prefill_tokens_per_second: Estimate
    ratio: Estimate | None
    acceleration_rate: float | None
    categories: dict[str, CategoryFigures]
    runs: list[PromptRun]
    repeats: list[PromptRun] = []
    failure: str | None = None

    @property
    def identical(self) -> int | None:
        """How many texts are the base model's own; None where tokens are not known."""
        known = [run.identical for run in self.runs if run.identical is not None]
        return sum(known) if known else None


class SkippedPeer(_Record):
    """A peer that was asked for and could not be measured. install: the line that installs it, if one
    does.
    """

    peer: str
    reason: str
    install: str | None = None


class SkippedPrompt(_Record):
    """A prompt that was left out, and why."""

    question_id: int | str
    reason: str


class Text(_Record):
    """The text whose perplexity tells the quality of weights. sha256: of its bytes. tokens: how many of them
    were read.
    """

    name: str
    sha256: str
    tokens: int


class AgainstResult(_Record):
    """The whole result.

    command: how it was made. machine: as in `medusa bench`'s report. threads: of every side that runs on this
    machine. suite: file, questions, categories. settings: what was asked for. sides: medusa first, then in
    the order asked for.
    """

    kind: Literal["against"] = "against"
    version: Literal[1] = 1
    command: str
    machine: dict[str, Any]
    model: str
    fingerprint: str
    threads: int
    engine: dict[str, Any]
    drafting: str
    suite: dict[str, Any]
    settings: dict[str, Any]
    text: Text
    prompts: list[Prompt]
    sides: list[SideResult]
    skipped: list[SkippedPeer]
    skipped_prompts: list[SkippedPrompt]

    def side(self, name: str) -> SideResult:
        """The side of that name; KeyError where there is none."""
        found = next((side for side in self.sides if side.name == name), None)
        if found is None:
            raise KeyError(name)
        return found
