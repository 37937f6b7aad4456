"""Hugging Face transformers: `generate` in float32, with int8 linear layers, with prompt lookup.

All three have the model that this project loads, so a GGUF file's weights are the same numbers.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from medusa_decoding.bench.peers.quality import summed
from medusa_decoding.bench.peers.side import About, PeerFailed, PeerMissing, Prompt, Written
from medusa_decoding.decoding.tree import FloatArray
from medusa_decoding.models import Source, load_base_model

LOOKED_UP = 10
"""Tokens per guess of prompt lookup: what its author and transformers take by default."""
PIECE = 32


class _Clock(BaseStreamer):  # type: ignore[misc]
    """Notes when tokens came: the prompt first, then each step's."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def put(self, value: torch.Tensor) -> None:
        self.marks.append((time.perf_counter(), value.numel()))

    def end(self) -> None:
        """All have come."""


class TransformersSide:
    """`model.generate`, greedy. looked_up: tokens per guess; 0 decodes plainly."""

    def __init__(self, model: Any, peer: str, weights: str, threads: int, *, looked_up: int = 0) -> None:
        self._model, self._threads, self._looked_up = model, threads, looked_up
        how = f"prompt lookup of {looked_up} tokens" if looked_up else "no guesses"
        self.about = About(
            name=peer,
            peer=peer,
            description=f"transformers' generate, {weights}, {how}",
            weights=weights,
            weights_key=f"transformers {weights}",
            versions={name: version(name) for name in ("transformers", "torch")},
            slow=True,
        )

    def write(self, prompt: Prompt, tokens: int) -> Written:
        """With the text's end ignored: the model's generation settings are replaced by greedy ones."""
        torch.set_num_threads(self._threads)
        ids = torch.tensor([prompt.ids], device=self._model.device)
        settings = {"prompt_lookup_num_tokens": self._looked_up} if self._looked_up else {}
        clock = _Clock()
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                found = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    streamer=clock,
                    **settings,
                )
        except (RuntimeError, ValueError, MemoryError) as error:
            raise PeerFailed(" ".join(str(error).split())[:200] or type(error).__name__) from error
        first, came = clock.marks[1]
        count = sum(number for _, number in clock.marks[2:])
        written = found[0, len(prompt.ids) :].tolist()
        assert came + count == len(written)
        return Written(
            count, clock.marks[-1][0] - first, first - started, written, max(1, len(clock.marks) - 2)
        )

    def log_likelihood(self, tokens: Sequence[int]) -> float:
        """In pieces of `PIECE` tokens: int8 activations are scaled by the largest among the rows of a pass,
        and passes of decoding are small.
        """
        torch.set_num_threads(self._threads)
        return summed(self._logits(tokens[:-1]), tokens[1:])

    def _logits(self, tokens: Sequence[int]) -> Iterator[FloatArray]:
        cache = None
        for start in range(0, len(tokens), PIECE):
            ids = torch.tensor([list(tokens[start : start + PIECE])], device=self._model.device)
            with torch.inference_mode():
                read = self._model(ids, past_key_values=cache, use_cache=True)
            cache = read.past_key_values
            yield from read.logits[0].float().cpu().numpy().astype(np.float64)

    def close(self) -> None:
        """Let the model go."""
        self._model = None


class Transformers:
    """Makes the sides; those with the same weights share a model."""

    def __init__(self, source: Source, device: str, threads: int) -> None:
        self._source, self._device, self._threads = source, device, threads
        self._plain: Any = None

    def plain(self) -> TransformersSide:
        """float32 (on a GPU: the type that the model was saved in)."""
        model = self._shared()
        return TransformersSide(model, "transformers", _type_of(model), self._threads)

    def prompt_lookup(self) -> TransformersSide:
        """The same with `prompt_lookup_num_tokens`."""
        model = self._shared()
        return TransformersSide(
            model, "transformers-prompt-lookup", _type_of(model), self._threads, looked_up=LOOKED_UP
        )

    def int8(self) -> TransformersSide:
        """torch's dynamic quantisation: int8 weights per tensor, activations quantised in each pass."""
        if self._device != "cpu":
            raise PeerMissing("torch's dynamic quantisation is for CPUs")
        model = self._load()
        with warnings.catch_warnings():
            # It will move to another package one day.
            warnings.simplefilter("ignore")
            quantize: Any = torch.ao.quantization.quantize_dynamic
            model = quantize(model, {torch.nn.Linear}, dtype=torch.qint8)
        return TransformersSide(model, "transformers-int8", "int8 dynamic", self._threads)

    def _shared(self) -> Any:
        self._plain = self._load() if self._plain is None else self._plain
        return self._plain

    def _load(self) -> Any:
        dtype = "float32" if self._device == "cpu" else "auto"
        model = load_base_model(self._source, device=self._device, dtype=dtype).model
        model.generation_config = GenerationConfig(do_sample=False, use_cache=True)
        return model


def _type_of(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.").replace("float", "fp")
