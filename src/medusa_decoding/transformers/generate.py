"""`medusa_generate`: Medusa for `model.generate(..., custom_generate=...)`."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from threading import Lock
from types import FrameType
from typing import Any, Literal

import torch
from transformers import GenerationConfig
from transformers.generation import GenerateDecoderOnlyOutput

from medusa_decoding.decoding import Decoder, Planner, Statistics
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.acceptance import Acceptance
from medusa_decoding.generation.rules import Draft, acceptance_for, check_draft, planner_for
from medusa_decoding.transformers.binding import Binding, bind, weights_of
from medusa_decoding.transformers.refusals import check, check_model
from medusa_decoding.transformers.rows import StreamedPositions, padded, sequences_of
from medusa_decoding.transformers.settings import Settings, stop_strings_criteria


def medusa_generate(
    heads: str | Path | None = "auto",
    *,
    draft: Draft = "both",
    tree: str | int | Path = "auto",
    acceptance: Literal["exact", "typical"] = "exact",
    tokenizer: Any = None,
) -> MedusaGenerate:
    """A callable that decodes for `model.generate(..., custom_generate=...)`: the same text in fewer passes.

    heads: a folder or Hub id; "auto" takes heads that come with this package and were trained for the model's
    weights; None takes none. draft, tree and acceptance: as in `medusa_decoding.load`; "typical" is not
    lossless. tokenizer: needed for `stop_strings` only. Raises UserError for values that are not known.
    """
    planner = planner_for(tree)
    check_draft(draft, heads, planner)
    return MedusaGenerate(heads, draft, planner, acceptance_for(acceptance), tokenizer)


class MedusaGenerate:
    """Made by `medusa_generate`. It keeps the last model it was used with, and one call waits for another.

    statistics: of the last call, all rows together; times are those of the row that took longest.
    """

    def __init__(
        self,
        heads: str | Path | None,
        draft: Draft,
        planner: Planner | None,
        acceptance: Acceptance,
        tokenizer: Any,
    ) -> None:
        self.statistics = Statistics()
        self._heads = heads
        self._draft = draft
        self._planner = planner
        self._acceptance = acceptance
        self._tokenizer = tokenizer
        self._binding: tuple[Hashable, Binding] | None = None
        self._lock = Lock()

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Sequence[Any],
        stopping_criteria: Sequence[Any],
        generation_config: GenerationConfig,
        streamer: Any = None,
        synced_gpus: bool = False,
        seed: int | None = None,
        stop_strings: str | Sequence[str] | None = None,
        tokenizer: Any = None,
        **forwarded: Any,
    ) -> torch.Tensor | GenerateDecoderOnlyOutput:
        """What `generate` calls when it has prepared everything; returns what that is to return.

        seed and stop_strings are arguments of `generate` then. seed: of a sampled text; None takes one of
        torch's random numbers. Raises UserError that names whatever is asked for and not done.
        """
        asked = {"streamer": streamer, "synced_gpus": synced_gpus, **_unseen(sys._getframe(1))}
        check_model(model)
        check(generation_config, logits_processor, asked, forwarded)
        criteria = [*stopping_criteria, *stop_strings_criteria(stop_strings, tokenizer or self._tokenizer)]
        settings = Settings.of(generation_config, criteria, input_ids.shape[-1], seed)
        with self._lock:
            binding = self._bound(model)
            texts = sequences_of(
                input_ids,
                forwarded.get("attention_mask"),
                forwarded.get("position_ids"),
                settings,
                binding.engine.context_length,
                binding.engine.vocabulary_size,
            )
            self._write(binding, texts, settings, asked["streamer"])
        self.statistics = _together(texts)
        ids = padded(input_ids, texts, settings.pad)
        return GenerateDecoderOnlyOutput(sequences=ids) if generation_config.return_dict_in_generate else ids

    def _bound(self, model: Any) -> Binding:
        weights = weights_of(model)
        if self._binding is None or self._binding[0] != weights:
            self._binding = weights, bind(model, self._heads, self._draft, self._planner)
        return self._binding[1]

    def _write(self, binding: Binding, texts: Sequence[Text], settings: Settings, streamer: Any) -> None:
        """Write all texts to their ends; the engine's memory is free afterwards."""
        decoder = Decoder(
            binding.engine,
            binding.drafter,
            binding.planner,
            self._acceptance,
            settings.prefill_rows,
            binding.lookup,
        )
        streamed = StreamedPositions(streamer, texts, settings.pad) if streamer is not None else None
        try:
            while running := [one for one in texts if one.finish_reason is None]:
                decoder.step(running)
                for one in running:
                    # From here on the mask would forbid nothing, and logits need not be looked at.
                    one.mask = one.mask if len(one.tokens) < settings.least else None
                if streamed is not None:
                    streamed.advance()
        finally:
            for one in texts:
                if one.handle is not None:
                    binding.engine.close(one.handle)
        if streamer is not None:
            streamer.end()


def _unseen(caller: FrameType) -> dict[str, Any]:
    """Arguments that `generate` was given and hands to no callable.

    By then transformers (looked at up to 5.23) has given the prompt to the streamer; whoever reads from it
    would wait for ever.
    """
    if caller.f_code.co_name != "generate":
        return {}
    names = ("streamer", "synced_gpus", "assistant_model")
    return {name: caller.f_locals[name] for name in names if caller.f_locals.get(name) is not None}


def _together(texts: Sequence[Text]) -> Statistics:
    total = Statistics()
    for one in texts:
        total.add(one.statistics)
    for name, value in vars(total).items():
        if isinstance(value, float):
            # Rows run side by side: the sum would count a pass once for each.
            setattr(total, name, max(getattr(one.statistics, name) for one in texts))
    return total
