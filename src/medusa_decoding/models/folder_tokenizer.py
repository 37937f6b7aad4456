"""The tokenizer of a model folder, from its tokenizer.json and tokenizer_config.json.

tokenizer.json is taken as it is. transformers builds some classes anew from the vocabulary and their
own rules, which is the same for the files that it wrote itself; where an older file says otherwise, what the
model's authors shipped counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from medusa_decoding.errors import UserError
from medusa_decoding.models.fast_tokenizer import FastTokenizer, Special
from medusa_decoding.models.json_file import read_json

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Classes that have no special tokens of their own for those that a config leaves out.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def tokenizer_of_folder(folder: Path, name: str) -> FastTokenizer | None:
    """The tokenizer in `folder` of the model that the user called `name`; None if it takes transformers to
    read it.

    Raises:
        UserError: a file is damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file() or not (folder / "tokenizer_config.json").is_file():
        return None
    config = _config(folder, name)
    plain = config.get("tokenizer_class") in _PLAIN_CLASSES
    if config.get("fix_mistral_regex") or not (plain or "eos_token" in config):
        return None
    try:
        backend = Tokenizer.from_file(str(path))
        return _with_config(backend, config, _templates(folder, config))
    except UserError:
        raise
    except Exception as error:  # the library raises nothing more precise
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be loaded (its tokenizer: {text}); download it again") from error


def _config(folder: Path, name: str) -> dict[str, Any]:
    """tokenizer_config.json, with what older folders have in special_tokens_map.json."""
    config = read_json(folder / "tokenizer_config.json", name)
    older = folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in config and older.is_file():
        config |= read_json(older, name)
    config.setdefault("extra_special_tokens", config.get("additional_special_tokens"))
    return config


def _with_config(
    backend: Tokenizer, config: dict[str, Any], template: str | dict[str, str] | None
) -> FastTokenizer:
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    named = _named(config)
    known = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    listed = config.get("added_tokens_decoder") or {}
    added = [_token(listed[key]) for key in sorted(listed, key=int)]
    backend.add_tokens([_special_if_named(token, named) for token in added if repr(token) not in known])
    extra = config["extra_special_tokens"]
    further = [_token(token) for token in extra] if isinstance(extra, list) else []
    return FastTokenizer(backend, special=named, extra_special=further, chat_template=template)


def _named(config: dict[str, Any]) -> dict[str, Special]:
    """Special tokens that have names: the usual ones and a model's own."""
    own = config["extra_special_tokens"] if isinstance(config["extra_special_tokens"], dict) else {}
    own |= {
        key: value
        for key, value in config.items()
        if key.endswith("_token") and key not in _NAMED and isinstance(value, str)
    }
    usual = {key: config[key] for key in _NAMED if config.get(key) is not None}
    return {key: _token(value) for key, value in {**usual, **own}.items()}


def _token(values: str | Mapping[str, Any]) -> Special:
    if isinstance(values, str):
        return values
    return AddedToken(**{key: values[key] for key in _KEYS if key in values})


def _special_if_named(token: Special, named: Mapping[str, Special]) -> Special:
    if isinstance(token, AddedToken) and token.content in map(str, named.values()):
        token.special = True
    return token


def _templates(folder: Path, config: dict[str, Any]) -> str | dict[str, str] | None:
    """The chat template: files of their own come before what the config holds."""
    files = {path.stem: path for path in sorted((folder / "chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    several = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    template = config.get("chat_template")
    if not several and not isinstance(template, list):
        return template
    several = several or {entry["name"]: entry["template"] for entry in template or []}
    return several["default"] if several.keys() == {"default"} else several
