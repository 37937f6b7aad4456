"""A base model as a folder that transformers, vLLM, the CPU engine and other programs load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_folder
from medusa_decoding.models.failures import explained
from medusa_decoding.models.hub import TOKENIZER, folder_of
from medusa_decoding.models.loader import BaseModel, load_base_model
from medusa_decoding.models.placement import DTYPES
from medusa_decoding.models.quiet import quiet
from medusa_decoding.models.source import Source

GENERATION = "generation_config.json"
# What fits the memory of a machine that reads a large model file by file.
_LARGEST_FILE = "5GB"


def convert_base(
    source: Source,
    folder: Path,
    *,
    dtype: str = "auto",
    page: Callable[[str], str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> BaseModel:
    """Write the model of `source` as a plain Hugging Face folder; returns it as it was written.

    A GGUF file's weights are dequantised, so that the folder's logits are those of this project's torch
    engine on the file.

    Args:
        source: what `resolve` returned.
        folder: a folder that does not exist yet; it is there whole or not at all.
        dtype: of the weights: "float32", "float16", "bfloat16" or "auto", which is float32 for a GGUF file
            (what its quantised values are exactly; the shorter types round them), else what the model was
            saved in.
        page: gives the text of a README.md, from the dtype.
        say: gets the size before anything is written.

    Raises:
        UserError: the folder exists, the model cannot be had, or `dtype` cannot hold its weights.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already: give a new folder with --out")
    base = load_base_model(source, device="cpu", dtype=_dtype(source, dtype))
    _check_range(base)
    weights = list(base.model.parameters())
    count, size = sum(one.numel() for one in weights) / 1e6, sum(one.nbytes for one in weights) / 1e6
    say(f"{count:,.0f} M weights as {_name(base.model.dtype)}, {size:,.0f} MB")
    readme = None if page is None else page(_name(base.model.dtype))
    save_base(base.model, base, source, folder, readme=readme)
    return base


def save_base(
    model: Any, base: BaseModel, source: Source, folder: Path, *, readme: str | None = None
) -> None:
    """Write weights, configuration and tokenizer of `model`, which came of `base`, which came of `source`.

    A folder of that name is replaced when everything is written.
    """
    origin = None if source.kind == "gguf" else folder_of(source, (GENERATION, *TOKENIZER))
    with atomic_folder(folder) as temporary, explained(source.name), quiet():
        if origin is None:
            model.generation_config = _generation(model.config, base)
        model.save_pretrained(temporary, max_shard_size=_LARGEST_FILE)
        if origin is None:
            _write_tokenizer(base, temporary)
        else:
            _copy((GENERATION, *TOKENIZER), origin, temporary)
        if readme is not None:
            (temporary / "README.md").write_text(readme, encoding="utf-8")
        _open_to_all(temporary)


def _generation(config: Any, base: BaseModel) -> Any:
    """A GGUF file names more than one end token; the model's configuration has room for one."""
    ends = sorted(base.tokenizer.eos_ids) or None
    return GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=ends, pad_token_id=config.pad_token_id
    )


def _open_to_all(folder: Path) -> None:
    """The usual permissions: safetensors lets only the user read what it writes."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~umask)


def _dtype(source: Source, dtype: str) -> str:
    if dtype not in ("auto", "float32", "float16", "bfloat16"):
        raise UserError(f"'{dtype}' is no dtype of a model's files; use auto, float32, float16 or bfloat16")
    if dtype != "auto":
        return dtype
    if source.kind == "gguf":
        return "float32"
    with explained(source.name), quiet():
        config = AutoConfig.from_pretrained(source.path or source.hub_id, trust_remote_code=False)
    saved = getattr(config, "dtype", None)
    return _name(saved) if isinstance(saved, torch.dtype) and saved in DTYPES.values() else "float32"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_range(base: BaseModel) -> None:
    for name, weight in base.model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise UserError(
                f"{base.name}: '{name}' has values that {_name(weight.dtype)} cannot hold; "
                "use --dtype float32 or bfloat16"
            )


def _copy(patterns: tuple[str, ...], origin: Path, folder: Path) -> None:
    for pattern in patterns:
        for path in filter(Path.is_file, origin.glob(pattern)):
            shutil.copyfile(path, folder / path.name)


def _write_tokenizer(base: BaseModel, folder: Path) -> None:
    """The tokenizer that was made from a GGUF file, in the files of the `tokenizers` library."""
    tokenizer = base.tokenizer.tokenizer
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        **tokenizer.special_tokens_map,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": base.context_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.chat_template,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
