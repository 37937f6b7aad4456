"""From a source to its tokenizer, without torch for GGUF files and for folders that have a tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_decoding.models.failures import explained
from medusa_decoding.models.hub import DESCRIPTIONS, folder_of
from medusa_decoding.models.json_file import read_json
from medusa_decoding.models.source import Source
from medusa_decoding.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from medusa_decoding.models.gguf_reader import GgufFile

# transformers' end tokens for configs that name none.
_USUAL_ENDS: dict[str, int | None] = {"llama": 2, "mistral": 2, "qwen2": None, "qwen3": None}


def load_tokenizer(source: Source) -> Tokenizer:
    """The tokenizer of `source`, without its weights.

    Raises:
        UserError: there is none, or it is of a kind that is not known.
    """
    with explained(source.name):
        if source.kind != "gguf":
            return tokenizer_of_source(source)
        from medusa_decoding.models.gguf_reader import GgufFile

        assert source.path is not None
        return tokenizer_of_gguf(GgufFile(source.path))


def tokenizer_of_gguf(file: GgufFile) -> Tokenizer:
    """The tokenizer in `file`.

    Raises:
        UserError: it is of a kind that is not known.
    """
    from medusa_decoding.models.gguf_tokenizer import end_ids, tokenizer_of

    return Tokenizer(tokenizer_of(file), end_ids(file))


def tokenizer_of_source(source: Source) -> Tokenizer:
    """The tokenizer of `source`, a folder or a Hub id.

    Raises:
        UserError: it is damaged or cannot be had; for other faults, what transformers raises.
    """
    from medusa_decoding.models.folder_tokenizer import tokenizer_of_folder

    folder = folder_of(source, DESCRIPTIONS)
    tokenizer: Any = tokenizer_of_folder(folder, source.name)
    if tokenizer is None:
        from medusa_decoding.models.transformers_tokenizer import tokenizer_of

        tokenizer = tokenizer_of(folder)
    ends = _as_set(_eos(folder, source.name))
    if (folder / "generation_config.json").is_file():
        ends |= _as_set(read_json(folder / "generation_config.json", source.name).get("eos_token_id"))
    return Tokenizer(tokenizer, ends)


def _eos(folder: Path, name: str) -> Any:
    """End tokens of the config; only transformers knows what those of a less common model are by default."""
    config = read_json(folder / "config.json", name)
    config = config.get("text_config") or config
    if "eos_token_id" in config:
        return config["eos_token_id"]
    if config.get("model_type") in _USUAL_ENDS:
        return _USUAL_ENDS[config["model_type"]]
    from medusa_decoding.models.transformers_tokenizer import eos_of

    return eos_of(folder)


def _as_set(eos: int | list[int] | None) -> set[int]:
    if eos is None:
        return set()
    return {eos} if isinstance(eos, int) else set(eos)
