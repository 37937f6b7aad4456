"""The bytes that each token of a tokenizer stands for.

Three ways of spelling bytes are in use: byte-level BPE (GPT-2, Llama 3, Qwen) writes every byte as one
printable character; SentencePiece (Llama 2, Mistral, Gemma) writes text with "▁" for spaces and "<0xNN>" for
single bytes; WordPiece marks continuations with "##".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from medusa_decoding.errors import UserError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's table backwards: printable Latin-1 stands for itself, the other bytes for characters from
    U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


def _byte_level(token: str) -> bytes:
    table = byte_of_character()
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode()


def _sentence_piece(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    if byte:
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode(errors="replace")


def _word_piece(token: str) -> bytes:
    return token[2:].encode() if token.startswith("##") else f" {token}".encode()


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer spells bytes.

    Attributes:
        of_token: the bytes of a token of the vocabulary.
        of_added: the bytes of a token that was added to it.
        drops_first_space: a text's first space is an artefact, which decoding leaves out.
    """

    of_token: Callable[[str], bytes]
    of_added: Callable[[str], bytes]
    drops_first_space: bool


def spelling_of(tokenizer: Any) -> Spelling:
    """How `tokenizer`, a `FastTokenizer` or one of transformers, spells bytes.

    Raises:
        UserError: the tokenizer decodes in a way that is not known here.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        if hasattr(tokenizer, "sp_model"):
            return _by_sentence_piece(bool(getattr(tokenizer, "add_prefix_space", True)))
        raise UserError(
            f"the tokenizer {type(tokenizer).__name__} has no tokenizer.json; "
            "save it once as a fast tokenizer and use that folder"
        )
    # Only the decoder is written down: a whole tokenizer has a vocabulary.
    steps = _steps(json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else None)
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return Spelling(_byte_level, str.encode, drops_first_space=False)
    if "Metaspace" in kinds:
        return _by_sentence_piece(any(step.get("prepend_scheme", "always") != "never" for step in steps))
    if "Replace" in kinds:
        return _by_sentence_piece("Strip" in kinds)
    if kinds <= {"WordPiece"}:
        return Spelling(_word_piece, _word_piece, drops_first_space=True)
    raise UserError(
        f"a tokenizer that decodes by {', '.join(sorted(kinds))} is not supported; use another model"
    )


def _by_sentence_piece(drops_first_space: bool) -> Spelling:
    return Spelling(_sentence_piece, _sentence_piece, drops_first_space)


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _steps(part)]
    return [decoder]
