"""What `generate` was asked, in the terms of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import EosTokenCriteria, GenerationConfig, MaxLengthCriteria, StopStringCriteria

from medusa_decoding.decoding import SamplingParameters
from medusa_decoding.errors import UserError

USUAL_PREFILL = 512
NEED_TOKENIZER = (
    "stop_strings need the tokenizer, which transformers hands to no callable:"
    " give it to medusa_generate(tokenizer=...)"
)


@dataclass(frozen=True)
class Settings:
    """Settings of one call, alike for all its rows.

    max_tokens, least: most and fewest new tokens; a text does not end before it has the fewest. ends: tokens
    that end a text. criteria: other things that may end it, each asked after each token. pad: fills rows that
    ended before others; None only where all end together. prefill_rows: see `Decoder`.
    """

    sampling: SamplingParameters
    max_tokens: int
    least: int
    ends: frozenset[int]
    criteria: tuple[Any, ...]
    pad: int | None
    prefill_rows: int

    @classmethod
    def of(cls, config: GenerationConfig, criteria: Sequence[Any], width: int, seed: int | None) -> Settings:
        """From what `generate` has prepared. width: tokens of the padded prompts, which its lengths include.

        Raises UserError for a seed out of range.
        """
        lengths = [one.max_length for one in criteria if isinstance(one, MaxLengthCriteria)]
        ends = [one.eos_token_id for one in criteria if isinstance(one, EosTokenCriteria)]
        others = [one for one in criteria if not isinstance(one, MaxLengthCriteria | EosTokenCriteria)]
        return cls(
            sampling=_sampling(config, seed),
            max_tokens=min(lengths) - width,
            least=max((config.min_length or 0) - width, config.min_new_tokens or 0),
            ends=frozenset(token for tokens in ends for token in torch.as_tensor(tokens).flatten().tolist()),
            criteria=tuple(others),
            pad=_pad(config),
            prefill_rows=config.prefill_chunk_size or USUAL_PREFILL,
        )


def stop_strings_criteria(stop_strings: str | Sequence[str] | None, tokenizer: Any) -> list[Any]:
    """The criterion that ends a text with one of the strings; none where there are none."""
    if not stop_strings:
        return []
    if tokenizer is None:
        raise UserError(NEED_TOKENIZER)
    strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
    return [StopStringCriteria(stop_strings=strings, tokenizer=tokenizer)]


def _sampling(config: GenerationConfig, seed: int | None) -> SamplingParameters:
    penalty = _or(config.repetition_penalty, 1.0)
    if not config.do_sample:
        return SamplingParameters(repetition_penalty=penalty)
    if seed is None:
        # From torch's own numbers, so that `set_seed` does what it does elsewhere.
        seed = int(torch.randint(2**63 - 1, ()))
    try:
        return SamplingParameters(
            temperature=_or(config.temperature, 1.0),
            top_k=_or(config.top_k, 0),
            top_p=_or(config.top_p, 1.0),
            min_p=_or(config.min_p, 0.0),
            repetition_penalty=penalty,
            seed=seed,
        )
    except ValueError as error:
        raise UserError(f"{error}: mend it in the call of generate") from None


def _or(value: Any, usual: Any) -> Any:
    return usual if value is None else value


def _pad(config: GenerationConfig) -> int | None:
    """`generate` takes the first end-of-text token where none is set."""
    token = getattr(config, "_pad_token_tensor", None)
    return config.pad_token_id if token is None else int(token)
