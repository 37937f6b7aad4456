"""Prompts that an instruct model writes itself (Magpie, arXiv:2406.08464, section 2.1).

Given the opening of a user's turn and nothing else, a model tuned on conversations goes on with what users
say. Attempts are numbered; each has its own random numbers and is judged after all before it, so the same
seed gives the same prompts with any batch.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from medusa_decoding.decoding import Decoder, SamplingParameters, Sequence
from medusa_decoding.distill import writer
from medusa_decoding.distill.answers import JsonObject, append_records, cut_torn_line, read_records
from medusa_decoding.distill.config import DistillConfig
from medusa_decoding.distill.distiller import choice_of
from medusa_decoding.distill.exclusion import Exclusion
from medusa_decoding.distill.prompts import Prompt
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.loops import is_loop

PREFIX = "self-"
# So many attempts in a row without a usable prompt, and the model is no instruct model.
PATIENCE = 200


@dataclass
class _Kept:
    """What the files hold: prompts by number of the attempt, and the number of the next attempt."""

    texts: dict[int, str] = field(default_factory=dict)
    next_attempt: int = 1


class SelfPrompter:
    """Lets the model write prompts until there are `config.self_prompts`, those of earlier runs included.

    others: texts of given prompts, which are no news. missed: this run's attempts that were dropped, by
    reason. Raises UserError where the model has no chat template.
    """

    def __init__(
        self, config: DistillConfig, base: Medusa, exclusion: Exclusion, others: Iterable[str]
    ) -> None:
        assert config.self_prompts is not None
        self._config, self._base, self._exclusion = config, base, exclusion
        self._wanted = config.self_prompts
        self._opening = base.tokenizer.user_opening()
        self._stops = base.tokenizer.eos_ids | base.tokenizer.special_ids
        self._decoder = Decoder(base.engine)
        kept = _read(config)
        self._texts, self._next = kept.texts, kept.next_attempt
        self._seen = {_normal(text) for text in [*others, *self._texts.values()]}
        self._running: dict[int, Sequence] = {}
        self._ended: dict[int, Sequence] = {}
        self._judge = self._next
        self._misses = 0
        self.missed: Counter[str] = Counter()
        self._new: list[JsonObject] = []
        self._dropped: list[JsonObject] = []
        self._flushed = time.monotonic()

    @property
    def count(self) -> int:
        """Prompts that there are."""
        return min(len(self._texts), self._wanted)

    def steps(self) -> Iterator[tuple[int, int]]:
        """Write prompts; yields (prompts found, tokens written) of each step."""
        try:
            while len(self._texts) < self._wanted:
                before = len(self._texts)
                self._refill()
                self._decoder.step(list(self._running.values()))
                tokens = len(self._running)
                self._collect()
                if time.monotonic() - self._flushed >= writer.FLUSH_SECONDS:
                    self.flush()
                yield len(self._texts) - before, tokens
        finally:
            for sequence in self._running.values():
                if sequence.handle is not None:
                    self._base.engine.close(sequence.handle)
            self._running = {}

    def flush(self) -> None:
        """Put what is new on the disk: first what was dropped, so that no attempt is kept twice."""
        if self._dropped:
            append_records(self._config.dropped_path, self._dropped)
        if self._new:
            append_records(self._config.self_prompts_path, self._new)
        self._new, self._dropped = [], []
        self._flushed = time.monotonic()

    def _refill(self) -> None:
        config = self._config
        sampling = SamplingParameters(
            temperature=config.self_prompt_temperature, top_p=config.self_prompt_top_p, seed=config.seed
        )
        while len(self._running) < config.batch:
            self._running[self._next] = Sequence(
                list(self._opening),
                sampling,
                max_tokens=config.self_prompt_tokens,
                stop_ids=self._stops,
                choice=choice_of(f"prompt {PREFIX}{self._next}"),
            )
            self._next += 1

    def _collect(self) -> None:
        """Judge the attempts that have ended, in their order."""
        for attempt, sequence in list(self._running.items()):
            if sequence.finish_reason is not None:
                assert sequence.handle is not None
                self._base.engine.close(sequence.handle)
                self._ended[attempt] = self._running.pop(attempt)
        while self._judge in self._ended and len(self._texts) < self._wanted:
            self._decide(self._judge, self._ended.pop(self._judge))
            self._judge += 1

    def _decide(self, attempt: int, sequence: Sequence) -> None:
        text = self._base.tokenizer.decode(sequence.tokens).strip()
        key = f"{PREFIX}{attempt}"
        reason = self._fault(text, sequence)
        if reason is None:
            self._misses = 0
            self._texts[attempt] = text
            self._seen.add(_normal(text))
            self._new.append({"id": key, "prompt": text})
            return
        self._dropped.append({"id": key, "reason": f"self-prompt: {reason}", "text": text})
        self.missed[reason] += 1
        self._misses += 1
        if self._misses >= PATIENCE:
            raise UserError(
                f"{self._base.name} wrote no usable prompt in {PATIENCE} attempts (the last: {reason});"
                " --self-prompts needs a model tuned on conversations: give --prompts instead"
            )

    def _fault(self, text: str, sequence: Sequence) -> str | None:
        if not _normal(text):
            return "empty"
        if sequence.finish_reason == "length":
            return "unfinished"
        if is_loop(sequence.tokens):
            return "loop"
        if _normal(text) in self._seen:
            return "duplicate"
        return "excluded" if self._exclusion.covers([text]) else None


def own_prompts(config: DistillConfig) -> list[Prompt]:
    """The model's own prompts that are in the file, as many as are wanted."""
    texts = list(_read(config).texts.items())[: config.self_prompts]
    return [Prompt(f"{PREFIX}{attempt}", [{"role": "user", "content": text}]) for attempt, text in texts]


def _read(config: DistillConfig) -> _Kept:
    kept = _Kept()
    attempts = [0]
    for path in (config.self_prompts_path, config.dropped_path):
        if path.is_file():
            cut_torn_line(path)
            for _, record in read_records(path):
                key = str(record.get("id"))
                own = path == config.self_prompts_path
                if re.fullmatch(rf"{PREFIX}\d+", key) and (own or "self-prompt" in str(record.get("reason"))):
                    attempts.append(int(key.removeprefix(PREFIX)))
                    if own:
                        kept.texts[attempts[-1]] = str(record.get("prompt"))
    kept.next_attempt = max(attempts) + 1
    return kept


def _normal(text: str) -> str:
    """The words alone: what makes two prompts the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))
