"""The frozen base model, run once: hidden states of the answers' tokens, and what heads share with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.hidden_cache import HiddenStates
from medusa_decoding.distill.progress import JobProgress
from medusa_decoding.models import BaseModel
from medusa_decoding.models.placement import weight_of
from medusa_decoding.training.hidden_on_cpu import states_on_cpu

if TYPE_CHECKING:
    from medusa_decoding.engines.cpu.engine import CpuEngine

# Tokens of one forward pass, padding included, and answers' tokens of one shard.
BATCH_TOKENS = 4096
SHARD_TOKENS = 50_000


@dataclass(frozen=True)
class SharedWeights:
    """What heads take from the base model: lm_head (V, D), its bias (V,) or None, input embedding (V', D)."""

    lm_head: Tensor
    bias: Tensor | None
    embedding: Tensor

    @staticmethod
    def of(model: Any) -> SharedWeights:
        """The weights of a Hugging Face causal LM."""
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        return SharedWeights(head.weight, getattr(head, "bias", None), embedding.weight)

    @staticmethod
    def gathered(model: Any, device: torch.device) -> SharedWeights:
        """The same on `device`, wherever a device map has put them."""
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        bias = None if getattr(head, "bias", None) is None else weight_of(head, "bias").to(device)
        return SharedWeights(
            weight_of(head, "weight").to(device), bias, weight_of(embedding, "weight").to(device)
        )

    def drafted(self, token_map: Tensor | None, device: torch.device, dtype: torch.dtype) -> SharedWeights:
        """The rows of a draft vocabulary (T,) of lm_head and bias, or all of them, without gradients."""

        def rows(tensor: Tensor) -> Tensor:
            kept = tensor.detach()
            if token_map is not None:
                kept = kept.index_select(0, token_map.to(kept.device))
            return kept.to(device, dtype)

        bias = None if self.bias is None else rows(self.bias)
        return SharedWeights(rows(self.lm_head), bias, self.embedding)


def fill_cache(
    base: BaseModel,
    answers: Sequence[Answer],
    cache: HiddenStates,
    *,
    progress: bool,
    engine: Callable[[], CpuEngine | None] = lambda: None,
) -> None:
    """Compute the hidden states of those answers that the cache lacks, and write them into it.

    engine: loads the CPU engine, only if states are missing; without one, torch computes them. After a kill,
    the shards already written are used.
    """
    missing = sorted((answer for answer in answers if answer.key not in cache), key=_length)
    if not missing:
        return
    with JobProgress("hidden states", len(missing), enabled=progress) as bar:
        shard: dict[str, Tensor] = {}
        for states in _computed(base, engine(), missing):
            shard.update(states)
            bar.advance(len(states), sum(map(len, states.values())))
            if sum(map(len, shard.values())) >= SHARD_TOKENS:
                cache.write(shard)
                shard = {}
        cache.write(shard)


def _computed(
    base: BaseModel, engine: CpuEngine | None, answers: Sequence[Answer]
) -> Iterator[dict[str, Tensor]]:
    """The (n, D) states of all answers, some at a time."""
    if engine is None:
        yield from (_hidden_states(base.model, batch) for batch in padded_batches(answers, BATCH_TOKENS))
        return
    for key, states in states_on_cpu(engine, answers):
        yield {key: torch.from_numpy(states)}


def padded_batches(answers: Sequence[Answer], most_tokens: int) -> list[list[Answer]]:
    """Answers by rising length, cut so that a padded batch holds at most that many tokens, or one answer."""
    batches: list[list[Answer]] = []
    for answer in sorted(answers, key=_length):
        if batches and (len(batches[-1]) + 1) * _length(answer) <= most_tokens:
            batches[-1].append(answer)
        else:
            batches.append([answer])
    return batches


def answer_states(model: Any, answers: Sequence[Answer]) -> list[Tensor]:
    """Each answer's (n, D): the hidden states that decided its tokens, the prompt's last row first.

    They carry gradients where the model's parameters do.
    """
    texts = [answer.prompt_ids + answer.answer_ids for answer in answers]
    width = max(map(len, texts))
    # What a device map keeps elsewhere fetches its inputs itself.
    place = torch.device("cpu") if model.device.type == "meta" else model.device
    tokens = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=place)
    lengths = torch.tensor([len(text) for text in texts], device=place)
    # Padding stands on the right: a causal model's earlier rows never see it.
    states = _input_of_lm_head(model, tokens, torch.arange(width, device=place) < lengths[:, None])
    return [
        states[row, len(answer.prompt_ids) - 1 : len(text) - 1]
        for row, (answer, text) in enumerate(zip(answers, texts, strict=True))
    ]


def _length(answer: Answer) -> int:
    return len(answer.prompt_ids) + len(answer.answer_ids)


@torch.inference_mode()
def _hidden_states(model: Any, answers: Sequence[Answer]) -> dict[str, Tensor]:
    """The states of each answer by its key."""
    states = answer_states(model, answers)
    return {answer.key: own.clone() for answer, own in zip(answers, states, strict=True)}


def _input_of_lm_head(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """(batch, width, D); the lm_head itself runs on a single row, for its logits are not needed."""
    seen: list[Tensor] = []

    def look(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(arguments[0])
        return (arguments[0][:1, :1], *arguments[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(look)
    try:
        model(input_ids=tokens, attention_mask=mask.long(), use_cache=False)
    finally:
        hook.remove()
    return seen[0]
