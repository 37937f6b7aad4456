"""What `generate` may be asked that this decoding does not do: named, not ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import GenerationConfig

from medusa_decoding.errors import UserError

HONOURED = frozenset(
    ["max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "do_sample", "temperature",
     "top_k", "top_p", "min_p", "repetition_penalty", "num_return_sequences", "return_dict_in_generate",
     "eos_token_id", "pad_token_id", "bos_token_id", "stop_strings", "prefill_chunk_size"]
)  # fmt: skip
WITHOUT_EFFECT = frozenset(
    # Of beams, of encoders, of other drafters, of a cache and a compiler that are not used here. None of
    # them changes a token.
    ["early_stopping", "length_penalty", "low_memory", "decoder_start_token_id", "renormalize_logits",
     "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
     "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size",
     "speculation_type", "max_cache_len", "compile_config", "disable_compile", "continuous_batching_config",
     "transformers_version"]
)  # fmt: skip
WHEN_SAMPLING = frozenset(["typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"])
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "use_cache": (True,),
    # The later ones are old names that some models bring along; they are about memory only.
    "cache_implementation": ("dynamic", "hybrid", "hybrid_chunked", "sliding_window"),
    "diversity_penalty": (0.0,),
    "penalty_alpha": (0.0,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "guidance_scale": (1.0,),
}
"""Values that ask for nothing, beside None and, but for `use_cache`, False."""

# Logits processors that `generate` makes itself: which of their values must be which setting's.
MADE_BY_GENERATE: dict[str, str | None] = {
    "RepetitionPenaltyLogitsProcessor": "repetition_penalty",
    "MinLengthLogitsProcessor": "min_length",
    "MinNewTokensLengthLogitsProcessor": "min_new_tokens",
    "TemperatureLogitsWarper": "temperature",
    "TopKLogitsWarper": "top_k",
    "TopPLogitsWarper": "top_p",
    "MinPLogitsWarper": "min_p",
    "LogitNormalization": None,
}
PREPARED = frozenset(
    ["attention_mask", "position_ids", "past_key_values", "cache_params", "use_cache", "logits_to_keep",
     "cache_position"]
)  # fmt: skip
"""What `generate` prepares for the model's forward."""


def check_model(model: Any) -> None:
    """Raise UserError where the model is not what this decoding is for."""
    if model.config.is_encoder_decoder:
        raise UserError("medusa_generate is for decoder-only models: leave custom_generate out")
    if model.training:
        raise UserError("the model is in training mode, so its text would be random: call model.eval() first")
    # PEFT runs a learned prompt's model through methods of its own that it puts into the model.
    owner = getattr(model.prepare_inputs_for_generation, "__self__", model)
    if getattr(getattr(owner, "active_peft_config", None), "is_prompt_learning", False):
        raise UserError("medusa_generate cannot use a learned prompt (PEFT): leave custom_generate out")


def check(
    config: GenerationConfig,
    processors: Sequence[Any],
    asked: Mapping[str, Any],
    forwarded: Mapping[str, Any],
) -> None:
    """Raise UserError that names everything that is asked for and not done.

    asked: further arguments of `generate`. forwarded: those for the model's forward.
    """
    names = [
        # A refused setting may have made a processor; its own name says more.
        *(list(_settings(config)) or _foreign(config, processors)),
        *(name for name in ("assistant_model", "synced_gpus") if asked.get(name)),
        *_inputs(forwarded),
    ]
    if names:
        raise UserError(
            f"medusa_generate cannot do {', '.join(dict.fromkeys(names))}:"
            f" leave {'it' if len(names) == 1 else 'them'} out, or leave custom_generate out"
        )


def _settings(config: GenerationConfig) -> Iterator[str]:
    usual = vars(GenerationConfig())
    for name, value in vars(config).items():
        if name.startswith("_") or name in HONOURED | WITHOUT_EFFECT:
            continue
        if name in WHEN_SAMPLING and not config.do_sample:
            continue
        # Settings of later versions of transformers are refused, too, unless left as they are.
        if not _asks_nothing(name, value) and value != usual.get(name):
            yield f"{name}={value!r}" if isinstance(value, int | float | str) else name


def _asks_nothing(name: str, value: Any) -> bool:
    # By identity: token 0 equals False and is a token.
    off = value is None or (value is False and name != "use_cache")
    return off or (isinstance(value, int | float | str) and value in NEUTRAL.get(name, ()))


def _foreign(config: GenerationConfig, processors: Sequence[Any]) -> Iterator[str]:
    """Logits processors that are not of an honoured setting's making."""
    counts = Counter(type(one).__name__ for one in processors)
    for one in processors:
        name = type(one).__name__
        if counts[name] > 1 or not _is_of_generate(one, config):
            yield f"the logits processor {name}"


def _is_of_generate(processor: Any, config: GenerationConfig) -> bool:
    kind = type(processor)
    if not kind.__module__.startswith("transformers.") or kind.__name__ not in MADE_BY_GENERATE:
        return False
    # A number leaves out the prompt's tokens; `generate` leaves out padding.
    if isinstance(getattr(processor, "prompt_ignore_length", None), int):
        return False
    setting = MADE_BY_GENERATE[kind.__name__]
    if setting is None:
        return True
    value = getattr(processor, "penalty" if setting == "repetition_penalty" else setting)
    return bool(value == getattr(config, setting))


def _inputs(forwarded: Mapping[str, Any]) -> Iterator[str]:
    for name, value in forwarded.items():
        if value is not None and name not in PREPARED:
            yield name
    cache = forwarded.get("past_key_values")
    # What the user gives may hold a text already, and is expected to hold this one afterwards.
    if cache is not None and (getattr(cache, "_is_user_defined", False) or cache.get_seq_length()):
        yield "past_key_values"
