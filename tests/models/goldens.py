"""The texts and llama.cpp's ids, as `tools/make_token_goldens.py` wrote them."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.gguf_tokenizer import tokenizer_of
from medusa_decoding.models.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"


def read(name: str) -> Any:
    return json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()))


def golden_ids(name: str) -> dict[str, list[list[int]]]:
    """Value of the metadata key that was varied ("" for none) -> ids of each text."""
    golden = read(f"{name}_tokens")
    return {value: golden["ids"][index] for value, index in golden["names"].items()}


def tokenizer_from(path: Path, **metadata: Any) -> Tokenizer:
    """The tokenizer of a GGUF file, some of its metadata replaced (dots in keys written as `__`)."""
    file = GgufFile(path)
    file.metadata.update({key.replace("__", "."): value for key, value in metadata.items()})
    return Tokenizer(tokenizer_of(file))


def differences(tokenizer: Tokenizer, expected: list[list[int]]) -> list[tuple[str, list[int], list[int]]]:
    """(text, llama.cpp's ids, ours) wherever they differ."""
    texts = read("strings")
    assert len(texts) == len(expected) == 1000
    found = [tokenizer.encode(text, special=False) for text in texts]
    return [(text, want, got) for text, want, got in zip(texts, expected, found, strict=True) if want != got]
