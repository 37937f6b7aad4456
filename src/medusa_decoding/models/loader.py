"""From a source to a base model in memory, with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers import PreTrainedModel as PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from medusa_decoding.errors import UserError
from medusa_decoding.models.failures import explained
from medusa_decoding.models.fingerprint import fingerprint
from medusa_decoding.models.gguf_config import config_of
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.gguf_tokenizer import tokenizer_of
from medusa_decoding.models.gguf_weights import state_dict_of
from medusa_decoding.models.source import Source
from medusa_decoding.models.tokenizer import Tokenizer

Quantization = Literal["4bit", "8bit"] | None

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


@dataclass(frozen=True)
class BaseModel:
    """A causal language model, ready to be asked.

    Attributes:
        model: the transformers model, in eval mode.
        tokenizer: its tokenizer.
        fingerprint: sixteen hexadecimal digits that name its weights (see `fingerprint.fingerprint`).
        name: what the user called it.
        context_length: positions that it was made for.
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
    quantization: Quantization = None,
    adapter: str | None = None,
) -> BaseModel:
    """Load the model and tokenizer of `source`.

    Args:
        source: what `resolve` returned.
        device: "auto" (CUDA if there is one, else CPU) or a torch device.
        dtype: "auto" (float32 on a CPU, else what the model was saved in), "float64", "float32", "bfloat16", "float16".
        quantization: bitsandbytes' 4 or 8 bits, None for none.
        adapter: folder or Hub id of a PEFT adapter to put on the model.

    Raises:
        UserError: the model cannot be had in this way; the message says why.
    """
    place = _device(device)
    options: dict[str, Any] = {"quantization_config": _quantization(quantization)} if quantization else {}
    if quantization:
        options["device_map"] = {"": place}
    with explained(source.name), _quiet():
        if source.kind == "gguf":
            model, tokenizer = _load_gguf(source, _dtype(dtype, place, None), options)
        else:
            model, tokenizer = _load_hf(source, dtype, place, options)
    if not quantization:
        model = _moved(model, place)
    if adapter is not None:
        model = _with_adapter(model, adapter)
    model.eval().requires_grad_(False)
    return BaseModel(model, tokenizer, fingerprint(model), source.name, _context_length(model.config))


def load_tokenizer(source: Source) -> Tokenizer:
    """The tokenizer of `source`, without its weights.

    Raises:
        UserError: there is none, or it is of a kind that is not known.
    """
    with explained(source.name), _quiet():
        if source.kind == "gguf":
            assert source.path is not None
            return _gguf_tokenizer(GgufFile(source.path))
        return _hf_tokenizer(source, AutoConfig.from_pretrained(_place(source)))


def _load_gguf(
    source: Source, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[PreTrainedModel, Tokenizer]:
    assert source.path is not None
    file = GgufFile(source.path)
    config = config_of(file)
    tokenizer = _gguf_tokenizer(file)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state_dict_of(file, config, dtype),
        dtype=dtype,
        attn_implementation=_attention(config),
        output_loading_info=True,
        **options,
    )
    _check(report, source)
    return model, tokenizer


def _load_hf(
    source: Source, dtype: str, place: torch.device, options: dict[str, Any]
) -> tuple[PreTrainedModel, Tokenizer]:
    config = AutoConfig.from_pretrained(_place(source))
    tokenizer = _hf_tokenizer(source, config)
    model, report = AutoModelForCausalLM.from_pretrained(
        _place(source),
        config=config,
        dtype=_dtype(dtype, place, config),
        attn_implementation=_attention(config),
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    _check(report, source)
    return model, tokenizer


def _place(source: Source) -> str:
    return str(source.path) if source.path is not None else str(source.hub_id)


def _gguf_tokenizer(file: GgufFile) -> Tokenizer:
    keys = (f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
    ends = [file.metadata[key] for key in keys if isinstance(file.metadata.get(key), int)]
    return Tokenizer(tokenizer_of(file), ends)


def _hf_tokenizer(source: Source, config: PreTrainedConfig) -> Tokenizer:
    ends = _as_set(config.get_text_config().eos_token_id)
    try:
        ends |= _as_set(GenerationConfig.from_pretrained(_place(source)).eos_token_id)
    except OSError:
        pass  # generation_config.json is optional
    return Tokenizer(AutoTokenizer.from_pretrained(_place(source)), ends)


def _as_set(eos: int | list[int] | None) -> set[int]:
    if eos is None:
        return set()
    return {eos} if isinstance(eos, int) else set(eos)


def _check(report: dict[str, Any], source: Source) -> None:
    """transformers fills missing weights with random numbers and says so in a log; here it is an error."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{source.name} lacks {len(missing)} of its weights ({missing[0]}, ...); download it again"
        )


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"'{device}' is no device; use auto, cpu, cuda or cuda:N") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {device} here; use --device cpu")
    return place


def _dtype(dtype: str, place: torch.device, config: PreTrainedConfig | None) -> torch.dtype:
    if dtype in _DTYPES:
        return _DTYPES[dtype]
    if dtype != "auto":
        raise UserError(f"'{dtype}' is no dtype; use auto, {', '.join(_DTYPES)}")
    if place.type == "cpu":
        return torch.float32
    saved = getattr(config, "dtype", None)
    return saved if isinstance(saved, torch.dtype) and saved != torch.float32 else torch.bfloat16


def _attention(config: PreTrainedConfig) -> str | None:
    """None lets transformers take SDPA where the architecture has it; its SDPA leaves out soft-capping (Gemma 2)."""
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


def _quantization(quantization: str) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UserError(
            "quantisation needs bitsandbytes: pip install 'medusa-decoding[quantization]'"
        ) from error
    from transformers import BitsAndBytesConfig

    if quantization not in ("4bit", "8bit"):
        raise UserError(f"'{quantization}' is no quantisation; use 4bit or 8bit")
    return BitsAndBytesConfig(load_in_4bit=quantization == "4bit", load_in_8bit=quantization == "8bit")


def _moved(model: PreTrainedModel, place: torch.device) -> PreTrainedModel:
    try:
        return model.to(place)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the model does not fit on {place}; use --quantization 4bit or --device cpu"
        ) from error


def _with_adapter(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError("adapters need peft: pip install 'medusa-decoding[adapters]'") from error
    with explained(adapter):
        return PeftModel.from_pretrained(model, adapter)


def _context_length(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    for key in _CONTEXT_KEYS:
        value = getattr(text, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return 2048


class _quiet:
    """Keeps transformers' own progress bars and reports from the user's terminal."""

    def __enter__(self) -> None:
        self._verbosity = transformers_logging.get_verbosity()
        self._bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self._verbosity)
        if self._bars:
            transformers_logging.enable_progress_bar()
