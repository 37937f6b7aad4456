"""The base model's own texts with the hidden states that decided each token: written now, or kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medusa_decoding.decoding import Decoder, Engine, SamplingParameters
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.protocols import as_rows
from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.hidden_cache import BASE_FILE, HiddenCache
from medusa_decoding.generation import Medusa

PREFILL_ROWS = 512

Written = tuple[list[int], Sequence[Any]]
"""Tokens of a text, and for each the hidden state that decided it, in the engine's own form."""


def write_texts(
    medusa: Medusa, prompts: Sequence[list[int]], sampling: SamplingParameters, max_tokens: int, batch: int
) -> Iterator[Written]:
    """Decode plainly, `batch` texts at once; yields them in the order of the prompts.

    Text n draws its own random numbers, whatever the batch.
    """
    decoder = medusa.decoder(speculative=False)
    for start in range(0, len(prompts), batch):
        texts = [
            Text(
                prompt,
                sampling,
                max_tokens=min(max_tokens, medusa.context_length - len(prompt)),
                stop_ids=medusa.tokenizer.eos_ids,
                choice=start + place,
            )
            for place, prompt in enumerate(prompts[start : start + batch])
        ]
        yield from _write_together(medusa.engine, decoder, texts)


def kept_texts(medusa: Medusa, answers: Sequence[Answer], folder: Path) -> Iterator[Written]:
    """Answers of `distill` with their hidden states, from the cache in `folder`; the engine computes those
    that are not there.
    """
    cache = HiddenCache(folder, medusa.fingerprint) if (folder / BASE_FILE).is_file() else None
    for answer in answers:
        if cache is not None and answer.key in cache:
            states = cache.read([answer.key])[answer.key].float().numpy()
            if states.shape[0] == len(answer.answer_ids):
                yield answer.answer_ids, list(states)
                continue
        yield answer.answer_ids, states_of(medusa.engine, answer.prompt_ids, answer.answer_ids)


def states_of(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> list[Any]:
    """The hidden states that decide each token of `answer` after `prompt`, both at least one token."""
    tokens = np.array([*prompt, *answer[:-1]], np.int64)
    handle, states = engine.open(), list[Any]()
    try:
        for start in range(0, len(tokens), PREFILL_ROWS):
            places = np.arange(len(tokens[start : start + PREFILL_ROWS]))
            wanted = start + places >= len(prompt) - 1
            piece = tokens[start : start + PREFILL_ROWS]
            verified = engine.forward(as_rows(handle, piece, start, places - 1, places, wanted))
            states.extend(_copied(verified.hidden(row)) for row in np.flatnonzero(wanted).tolist())
            engine.commit(places)
    finally:
        engine.close(handle)
    return states


def _write_together(engine: Engine, decoder: Decoder, texts: Sequence[Text]) -> Iterator[Written]:
    states: dict[int, list[Any]] = {id(text): [] for text in texts}
    try:
        while running := [text for text in texts if text.finish_reason is None]:
            for step in decoder.step(running):
                if step.tokens:
                    states[id(step.sequence)].append(_copied(step.sequence.hidden))
    finally:
        for text in texts:
            if text.handle is not None:
                engine.close(text.handle)
    yield from ((text.tokens, states[id(text)]) for text in texts)


def _copied(state: Any) -> Any:
    """The state on its own: an engine may hand out a part of what it overwrites in its next pass."""
    return state.clone() if hasattr(state, "clone") else np.array(state)
