"""From a source to a base model in memory, with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from medusa_decoding.errors import UserError
from medusa_decoding.models.failures import explained
from medusa_decoding.models.fingerprint import fingerprint
from medusa_decoding.models.gguf_config import config_of
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.gguf_weights import state_dict_of
from medusa_decoding.models.placement import device_named, dtype_named, quantization_named
from medusa_decoding.models.quiet import quiet
from medusa_decoding.models.source import Source
from medusa_decoding.models.tokenizer import Tokenizer
from medusa_decoding.models.tokenizer_source import tokenizer_of_gguf, tokenizer_of_source

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_USUAL_CONTEXT = 2048
# Nothing that a checkpoint brings along is ever run.
_SAFE = {"trust_remote_code": False}


@dataclass(frozen=True)
class BaseModel:
    """A causal language model, ready to be asked.

    Attributes:
        model: the transformers model, in eval mode, without gradients.
        tokenizer: its tokenizer.
        fingerprint: sixteen hexadecimal digits that name its weights (see `fingerprint.fingerprint`).
        name: what the user called it.
        context_length: number of positions that it was made for.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    fingerprint: str
    name: str
    context_length: int


def load_base_model(
    source: Source,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: Literal["4bit", "8bit"] | None = None,
    adapter: str | None = None,
    device_map: str | dict[str, str] | None = None,
) -> BaseModel:
    """Load the model and tokenizer of `source`.

    Args:
        source: what `resolve` returned.
        device: "auto" (CUDA if there is one, else CPU) or a torch device.
        dtype: "float64", "float32", "bfloat16", "float16" or "auto" (float32 on a CPU, else what the model
            was saved in).
        quantization: bitsandbytes' 4 or 8 bits; None for none.
        adapter: folder or Hub id of a PEFT adapter to put on the model.
        device_map: spreads the layers over GPUs, memory and disk, as transformers takes it ("auto": filling
            one after the other); None: all of them on `device`.

    Raises:
        UserError: the model cannot be had in this way; the message says why.
    """
    place = device_named(device)
    options: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
    if quantization is not None:
        options = {"device_map": {"": place}, **options}
        options["quantization_config"] = quantization_named(quantization)
    load = _load_gguf if source.kind == "gguf" else _load_hf
    with explained(source.name), quiet():
        model, tokenizer = load(source, dtype, place, options)
        if not options:
            model = model.to(place)
    if adapter is not None:
        model = _with_adapter(model, adapter, merge=quantization is None)
    model.eval().requires_grad_(False)
    return BaseModel(model, tokenizer, fingerprint(model), source.name, _context_length(model.config))


Loaded = tuple[PreTrainedModel, Tokenizer]


def _load_gguf(source: Source, dtype: str, place: torch.device, options: dict[str, Any]) -> Loaded:
    file = _open(source)
    config = config_of(file)
    tokenizer = tokenizer_of_gguf(file)
    kind = dtype_named(dtype, place, None)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None,
        config=config,
        state_dict=state_dict_of(file, config, kind),
        dtype=kind,
        **_attention(config),
        **options,
    )
    # transformers takes the usual ids of the model type for those that the file does not name.
    model.generation_config = GenerationConfig.from_model_config(config)
    return model, tokenizer


def _load_hf(source: Source, dtype: str, place: torch.device, options: dict[str, Any]) -> Loaded:
    config = AutoConfig.from_pretrained(_place(source), **_SAFE)
    tokenizer = tokenizer_of_source(source)
    model, report = AutoModelForCausalLM.from_pretrained(
        _place(source),
        config=config,
        dtype=dtype_named(dtype, place, config),
        output_loading_info=True,
        **_attention(config),
        **_SAFE,
        **options,
    )
    # transformers fills missing weights with random numbers and says so in a log; here it is an error.
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{source.name} lacks {len(missing)} of the model's weights ({missing[0]} among them); "
            "download it again, or give a causal language model"
        )
    return model, tokenizer


def _open(source: Source) -> GgufFile:
    assert source.path is not None
    return GgufFile(source.path)


def _place(source: Source) -> str:
    return str(source.path) if source.path is not None else str(source.hub_id)


def _attention(config: PreTrainedConfig) -> dict[str, str]:
    """SDPA where the architecture has it, which is the default; it cannot do soft-capped scores (Gemma 2)."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return {"attn_implementation": "eager"} if capped else {}


def _with_adapter(model: PreTrainedModel, adapter: str, *, merge: bool) -> PreTrainedModel:
    """The model with the adapter in its weights, or, over quantised weights, beside them."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError("adapters need peft: pip install 'medusa-decoding[adapters]'") from error
    with explained(adapter), quiet():
        adapted = PeftModel.from_pretrained(model, adapter)
        if adapted.active_peft_config.is_prompt_learning:
            raise UserError(
                f"{adapter} is a learned prompt, not new weights; only weight adapters are supported"
            )
        return adapted.merge_and_unload() if merge else adapted.get_base_model()


def _context_length(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    lengths = (getattr(text, key, None) for key in _CONTEXT_KEYS)
    return next((length for length in lengths if isinstance(length, int) and length > 0), _USUAL_CONTEXT)
