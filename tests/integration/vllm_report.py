"""The same prompts decoded greedily by vLLM, by vLLM with exported heads, and by this project: what came out.

Everything is in float32: the weights are those of one folder that `convert_base` wrote, the heads those of
one folder in vLLM's layout.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import medusa_decoding
from medusa_decoding.generation import Medusa

WORKER = Path(__file__).parent / "vllm_worker.py"


@dataclass(frozen=True)
class Counts:
    """drafts: steps that verified guesses. accepted: in how many of them the guess at each position held."""

    drafts: int
    accepted: tuple[int, ...]

    def __add__(self, other: Counts) -> Counts:
        both = zip(self.accepted, other.accepted, strict=True)
        return Counts(self.drafts + other.drafts, tuple(one + another for one, another in both))

    @property
    def rates(self) -> list[float]:
        """Acceptance per position, as vLLM defines it: of all drafts, also where an earlier guess failed."""
        return [count / self.drafts for count in self.accepted]


@dataclass(frozen=True)
class Answer:
    """One prompt's text up to and with its end, and how much of it was guessed. seconds: of processor time,
    prefill included.
    """

    prompt_ids: list[int]
    tokens: list[int]
    seconds: float
    counts: Counts


@dataclass(frozen=True)
class Side:
    """One way to decode. facts: what its report says of it beside the answers."""

    answers: list[Answer]
    facts: dict[str, Any]

    @property
    def tokens_per_second(self) -> float:
        """Of one processor's time, prefill included."""
        return sum(len(one.tokens) for one in self.answers) / sum(one.seconds for one in self.answers)


def of_vllm(
    python: str,
    folder: Path,
    model: Path,
    prompts: Sequence[str],
    tokens: int,
    heads: Path | None,
    count: int,
) -> Side:
    """vLLM in the environment of `python`, files in `folder`; with `heads`, `count` of them guess."""
    speculative = {"method": "medusa", "model": str(heads), "num_speculative_tokens": count}
    request, result = folder / "request.json", folder / "result.json"
    asked = {
        "model": str(model),
        "prompts": list(prompts),
        "max_tokens": tokens,
        "speculative": speculative if heads is not None else None,
    }
    request.write_text(json.dumps(asked), encoding="utf-8")
    with (folder / "vllm.log").open("w", encoding="utf-8") as log:
        command = [python, str(WORKER), str(request), str(result)]
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        lines = (folder / "vllm.log").read_text(encoding="utf-8").splitlines()
        raise RuntimeError("vLLM failed:\n" + "\n".join(lines[-15:]))
    found = json.loads(result.read_text(encoding="utf-8"))
    none = [0] * count
    answers = [
        Answer(
            one["prompt_ids"],
            one["tokens"],
            one["seconds"],
            Counts(one["drafts"], tuple(one["accepted"] or none)),
        )
        for one in found["answers"]
    ]
    return Side(answers, {"versions": found["versions"]})


def of_this_project(model: Path, heads: Path, prompts: Sequence[str], tokens: int, count: int) -> Side:
    """The CPU engine on float32 weights, one thread; the tree is the chain of each head's likeliest token."""
    chain = json.dumps([[0] * depth for depth in range(1, count + 1)])
    medusa = medusa_decoding.load(
        str(model),
        heads=str(heads),
        draft="heads",
        tree=chain,
        engine="cpu",
        weights="fp32",
        threads=1,
        progress=False,
    )
    answers = [_answer(medusa, prompt, tokens, count) for prompt in prompts]
    return Side(answers, {"engine": medusa.engine.description})


def _answer(medusa: Medusa, prompt: str, tokens: int, count: int) -> Answer:
    """vLLM counts a last step as a whole, whatever of it lies behind the end: so the text is written once
    more, a step further.
    """
    ids = medusa.encode(prompt)
    started = time.process_time()
    kept = medusa.generate(ids, max_tokens=tokens).tokens
    seconds = time.process_time() - started
    further = medusa.generate(ids, max_tokens=len(kept) + count + 1, ignore_eos=True)
    assert further.tokens[: len(kept)] == kept
    return Answer(ids, kept, seconds, counts_of(further.sources, len(kept), count))


def counts_of(sources: Sequence[int], length: int, heads: int) -> Counts:
    """Counts of the steps that made the first `length` tokens. sources: who guessed each token, 0 the base
    model itself, which ends every step and wrote the first token in the prefill.

    >>> counts_of([0, 1, 2, 0, 0, 1, 0], 5, heads=2)
    Counts(drafts=2, accepted=(1, 1))
    """
    counts, place = Counts(0, (0,) * heads), 1
    while place < length:
        guessed = list(sources[place:]).index(0)
        counts += Counts(1, tuple(int(head < guessed) for head in range(heads)))
        place += guessed + 1
    return counts


def same(one: Side, other: Side) -> list[bool]:
    """Which prompts got the same text."""
    return [a.tokens == b.tokens for a, b in zip(one.answers, other.answers, strict=True)]


def total(side: Side, chosen: Sequence[bool]) -> Counts:
    """Counts over the chosen prompts."""
    first, *more = (one.counts for one, kept in zip(side.answers, chosen, strict=True) if kept)
    return sum(more, start=first)


def differences(model: Any, one: Side, other: Side) -> list[dict[str, Any]]:
    """Where two sides' texts part, and how far the two tokens' probabilities are apart there by `model`, the
    same weights in transformers.
    """
    pairs = zip(one.answers, other.answers, strict=True)
    return [_difference(model, number, a, b) for number, (a, b) in enumerate(pairs) if a.tokens != b.tokens]


def _difference(model: Any, number: int, one: Answer, other: Answer) -> dict[str, Any]:
    pairs = zip(one.tokens, other.tokens, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
    assert place is not None, f"prompt {number}: one text ends where the other goes on"
    with torch.no_grad():
        logits = model(torch.tensor([one.prompt_ids + one.tokens[:place]])).logits[0, -1]
    found = torch.softmax(logits.double(), -1)[[one.tokens[place], other.tokens[place]]].tolist()
    return {"prompt": number, "token": place, "probabilities": found, "gap": abs(found[0] - found[1])}
