"""A model in memory as a folder that transformers, the CPU engine and other programs load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from medusa_decoding.files import atomic_folder
from medusa_decoding.models import BaseModel, Source
from medusa_decoding.models.hub import TOKENIZER, folder_of
from medusa_decoding.models.quiet import quiet


def save_base(model: Any, base: BaseModel, source: Source, folder: Path) -> None:
    """Write weights, configuration and tokenizer of `model`, which came of `base`, which came of `source`.

    A folder of that name is replaced when everything is written.
    """
    with atomic_folder(folder) as temporary, quiet():
        if source.kind == "gguf" and base.tokenizer.eos_ids:
            # The file says more than one id in the model's configuration can.
            model.generation_config.eos_token_id = sorted(base.tokenizer.eos_ids)
        model.save_pretrained(temporary)
        if source.kind == "gguf":
            _write_tokenizer(base, temporary)
        else:
            _copy_tokenizer(folder_of(source, TOKENIZER), temporary)


def _copy_tokenizer(origin: Path, folder: Path) -> None:
    for pattern in TOKENIZER:
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
