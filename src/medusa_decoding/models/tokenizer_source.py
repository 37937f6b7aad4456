"""From a source to its tokenizer, without torch for GGUF files and for folders that have a tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medusa_decoding.models.failures import explained
from medusa_decoding.models.hub import DESCRIPTIONS, folder_of
from medusa_decoding.models.json_file import read_json
from medusa_decoding.models.source import Source
from medusa_decoding.models.tokenizer import Tokenizer

# transformers' end tokens for configs that name none.
_USUAL_ENDS: dict[str, int | None] = {"llama": 2, "mistral": 2, "qwen2": None, "qwen3": None}


def load_tokenizer(source: Source) -> Tokenizer:
    """The tokenizer of `source`, without its weights.

    Raises:
        UserError: there is none, or it is of a kind that is not known.
    """
    with explained(source.name):
        return _of_gguf(source) if source.kind == "gguf" else _of_folder(source)


def _of_gguf(source: Source) -> Tokenizer:
    from medusa_decoding.models.gguf_reader import GgufFile
    from medusa_decoding.models.gguf_tokenizer import end_ids, tokenizer_of

    assert source.path is not None
    file = GgufFile(source.path)
    return Tokenizer(tokenizer_of(file), end_ids(file))


def _of_folder(source: Source) -> Tokenizer:
    from medusa_decoding.models.folder_tokenizer import tokenizer_of_folder

    folder = folder_of(source, DESCRIPTIONS)
    tokenizer: Any = tokenizer_of_folder(folder, source.name)
    ends = _ends(folder, source.name)
    if tokenizer is None or ends is None:
        from medusa_decoding.models import transformers_tokenizer

        tokenizer = tokenizer or transformers_tokenizer.tokenizer_of(folder)
        ends = transformers_tokenizer.ends_of(folder) if ends is None else ends
    return Tokenizer(tokenizer, ends)


def _ends(folder: Path, name: str) -> set[int] | None:
    """End tokens that the config and the generation config name; None if only transformers knows."""
    config = read_json(folder / "config.json", name)
    config = config.get("text_config") or config
    if "eos_token_id" not in config and config.get("model_type") not in _USUAL_ENDS:
        return None
    ends = _as_set(config.get("eos_token_id", _USUAL_ENDS.get(config.get("model_type", ""))))
    if (folder / "generation_config.json").is_file():
        ends |= _as_set(read_json(folder / "generation_config.json", name).get("eos_token_id"))
    return ends


def _as_set(eos: int | list[int] | None) -> set[int]:
    if eos is None:
        return set()
    return {eos} if isinstance(eos, int) else set(eos)
