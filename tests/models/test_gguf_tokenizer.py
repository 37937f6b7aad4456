from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.gguf_tokenizer import end_ids, tokenizer_of

from .goldens import DATA, differences, golden_ids, tokenizer_from

BYTE_LEVEL, SENTENCE_PIECE = DATA / "byte_level.gguf", DATA / "sentence_piece.gguf"


@pytest.mark.parametrize("name", ["plain", "phi-3"])
def test_sentence_piece_ids_are_llama_cpps(name: str) -> None:
    tokenizer = tokenizer_from(SENTENCE_PIECE, general__name=name)
    assert differences(tokenizer, golden_ids("sentence_piece")[name]) == []


def test_phi3_swallows_spaces_behind_special_tokens() -> None:
    plain, phi = (tokenizer_from(SENTENCE_PIECE, general__name=name) for name in ("plain", "Phi-3 mini"))
    assert phi.encode("<|im_end|> \n a", special=False) == phi.encode("<|im_end|>a", special=False)
    assert plain.encode("<|im_end|> \n a", special=False) != plain.encode("<|im_end|>a", special=False)


@pytest.mark.real
def test_smollm2_ids_are_llama_cpps(smollm2_path: Path) -> None:
    assert differences(tokenizer_from(smollm2_path), golden_ids("smollm2")[""]) == []


@pytest.mark.real
def test_qwen_coder_ids_are_llama_cpps() -> None:
    from medusa_decoding.models.aliases import ALIASES
    from medusa_decoding.models.download import cache_folder

    path = cache_folder() / ALIASES["qwen-coder"].file_name
    if not path.exists():
        pytest.skip("491 MB are not downloaded for this alone: `medusa pull qwen-coder` makes it run")
    assert differences(tokenizer_from(path), golden_ids("qwen_coder")[""]) == []


def test_a_token_is_what_the_file_says() -> None:
    """llama.cpp makes "</s>" a special token wherever it occurs; in a byte-level vocabulary it is plain
    text.
    """
    tokenizer = tokenizer_from(BYTE_LEVEL)
    ids = tokenizer.encode("a</s>b")
    assert b"".join(tokenizer.token_bytes(token) for token in ids) == b"a</s>b"


def test_nothing_is_normalised() -> None:
    tokenizer = tokenizer_from(BYTE_LEVEL, tokenizer__ggml__pre="qwen2")
    assert tokenizer.encode("e\u0301") != tokenizer.encode("\u00e9")


@pytest.mark.parametrize(
    ("metadata", "first", "last"),
    [
        ({}, [], []),
        ({"tokenizer__ggml__pre": "llama-bpe"}, ["bos"], []),
        ({"tokenizer__ggml__add_bos_token": True}, ["bos"], []),
        ({"tokenizer__ggml__pre": "llama-bpe", "tokenizer__ggml__add_bos_token": False}, [], []),
        ({"tokenizer__ggml__add_eos_token": True}, [], ["eos"]),
    ],
)
def test_beginning_and_end_of_a_byte_level_sequence(
    metadata: dict[str, Any], first: list[str], last: list[str]
) -> None:
    tokenizer = tokenizer_from(BYTE_LEVEL, **metadata)
    keys = GgufFile(BYTE_LEVEL).metadata
    around = {name: keys[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")}
    inner = tokenizer.encode("some text", special=False)
    assert tokenizer.encode("some text") == [around[n] for n in first] + inner + [around[n] for n in last]


def test_sentence_piece_begins_with_bos_and_a_space() -> None:
    tokenizer = tokenizer_from(SENTENCE_PIECE)
    ids = tokenizer.encode("decoding")
    assert ids[0] == 1
    assert b"".join(tokenizer.token_bytes(token) for token in ids) == b" decoding"
    assert tokenizer.decode(ids) == "decoding"
    bare = tokenizer_from(SENTENCE_PIECE, tokenizer__ggml__add_space_prefix=False)
    assert b"".join(bare.token_bytes(token) for token in bare.encode("decoding")) == b"decoding"


def test_the_template_and_the_ends_come_from_the_file() -> None:
    file = GgufFile(BYTE_LEVEL)
    file.metadata["tokenizer.chat_template"] = "{{ messages[0]['content'] }}"
    file.metadata["tokenizer.ggml.eot_token_id"] = 7
    assert tokenizer_of(file).chat_template == "{{ messages[0]['content'] }}"
    assert end_ids(file) == {file.metadata["tokenizer.ggml.eos_token_id"], 7}


@pytest.mark.parametrize(
    ("path", "metadata", "message"),
    [
        (BYTE_LEVEL, {"tokenizer__ggml__model": "t5"}, "tokenizer of kind 't5'"),
        (BYTE_LEVEL, {"tokenizer__ggml__pre": "exotic"}, "pre-tokenizer 'exotic' is not among"),
        (BYTE_LEVEL, {"tokenizer__ggml__tokens": ["a"]}, "not one type for each token"),
        (BYTE_LEVEL, {"tokenizer__ggml__tokens": ["a", "a"]}, "a token comes twice"),
        (BYTE_LEVEL, {"tokenizer__ggml__tokens": [1, 2]}, "no list of str under 'tokenizer.ggml.tokens'"),
        (BYTE_LEVEL, {"tokenizer__ggml__merges": None}, "no list of str under 'tokenizer.ggml.merges'"),
        (BYTE_LEVEL, {"tokenizer__ggml__bos_token_id": 10**6}, "bos token 1000000 is not in the vocabulary"),
        (BYTE_LEVEL, {"tokenizer__ggml__add_bos_token": 3}, "no truth value under"),
        (SENTENCE_PIECE, {"tokenizer__ggml__scores": [0.0]}, "not one score for each token"),
        (
            SENTENCE_PIECE,
            {"tokenizer__ggml__tokens": ["<unk>"], "tokenizer__ggml__scores": [0.0]},
            "lacks byte",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(path: Path, metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        tokenizer_from(path, **metadata)
    assert "\n" not in str(caught.value)
