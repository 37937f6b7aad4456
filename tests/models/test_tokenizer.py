from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from medusa_decoding.errors import UserError
from medusa_decoding.models.tokenizer import Tokenizer

from .goldens import DATA, read, tokenizer_from

KINDS = ("byte_level", "sentence_piece")


@functools.cache
def tokenizer_named(kind: str) -> Tokenizer:
    return tokenizer_from(DATA / f"{kind}.gguf")


def by_words(decoder: Any) -> Tokenizer:
    backend = Backend(models.WordLevel({"[UNK]": 0, "two": 1, "words": 2, "##s": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoder
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_stream_joined_is_the_decoded_whole(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_named(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=30))
    cuts = data.draw(st.lists(st.integers(0, len(ids)), max_size=10).map(sorted))
    stream = tokenizer.stream()
    pushed = [stream.push(ids[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    whole = b"".join(tokenizer.token_bytes(token) for token in ids)
    if kind == "sentence_piece":
        whole = whole.removeprefix(b" ")
    joined = "".join(pushed) + stream.flush()
    assert joined == tokenizer.decode(ids) == whole.decode("utf-8", errors="replace")


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=40).filter(lambda text: "<" not in text))  # "<unk>" is a token, not a text
def test_any_text_comes_back(kind: str, text: str) -> None:
    tokenizer = tokenizer_named(kind)
    ids = tokenizer.encode(text, special=False)
    spaced = f" {text}" if kind == "sentence_piece" and text else text
    assert b"".join(tokenizer.token_bytes(token) for token in ids) == spaced.encode()
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_agrees_with_the_library(kind: str) -> None:
    tokenizer = tokenizer_named(kind)
    for text in read("strings"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == tokenizer.tokenizer.backend_tokenizer.decode(
            ids, skip_special_tokens=True
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_never_splits_a_character(kind: str) -> None:
    tokenizer = tokenizer_named(kind)
    text = "naïve 漢字 👩‍💻🏳️‍🌈 end"
    stream = tokenizer.stream()
    pieces = [stream.push([token]) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert stream.flush() == ""


def test_an_unfinished_character_appears_at_the_flush() -> None:
    tokenizer = tokenizer_named("sentence_piece")
    stream = tokenizer.stream()
    first_byte = tokenizer.tokenizer.backend_tokenizer.token_to_id("<0xE2>")
    assert stream.push([first_byte]) == ""
    assert stream.flush() == "\ufffd"


def test_a_stream_asks_for_each_token_once() -> None:
    tokenizer = tokenizer_named("byte_level")
    asked: list[int] = []
    stream = tokenizer.stream()
    stream._bytes_of = lambda token: (asked.append(token), b"x")[1]  # type: ignore[func-returns-value]
    for token in range(500):
        stream.push([token])
    assert asked == list(range(500))


def test_bytes_of_tokens() -> None:
    piece = tokenizer_named("sentence_piece")
    ids = piece.tokenizer.backend_tokenizer.token_to_id
    assert piece.token_bytes(ids("<0xFF>")) == b"\xff"
    assert piece.token_bytes(ids("▁word")) == b" word"
    assert piece.token_bytes(ids("</s>")) == b""
    assert piece.token_bytes(ids("<mark>")) == b"<mark>"
    level = tokenizer_named("byte_level")
    assert level.token_bytes(level.tokenizer.backend_tokenizer.token_to_id("Ġword")) == b" word"
    assert level.token_bytes(level.tokenizer.backend_tokenizer.token_to_id("<|im_end|>")) == b""
    assert level.token_bytes(level.vocabulary_size) == level.token_bytes(-1) == b""
    every = {level.token_bytes(token) for token in range(level.vocabulary_size)}
    assert {bytes([byte]) for byte in range(256)} <= every


def test_bytes_of_added_tokens() -> None:
    for kind, token, text in (("sentence_piece", "▁▁▁▁▁", "     "), ("byte_level", "<a b>é", "<a b>é")):
        inner = copy.deepcopy(tokenizer_named(kind).tokenizer)
        inner.backend_tokenizer.add_tokens([AddedToken(token, normalized=False)])
        tokenizer = Tokenizer(inner)
        assert tokenizer.token_bytes(inner.backend_tokenizer.token_to_id(token)) == text.encode()


def test_special_tokens_are_skipped_or_shown() -> None:
    tokenizer = tokenizer_named("byte_level")
    ids = tokenizer.encode("one<|im_end|><mark> two")
    assert tokenizer.decode(ids) == "one<mark> two"
    assert tokenizer.decode(ids, skip_special=False) == "one<|im_end|><mark> two"


def test_word_pieces_are_joined_by_spaces() -> None:
    assert by_words(decoders.WordPiece()).decode([1, 2, 3]) == "two wordss"
    assert by_words(None).decode([1, 2]) == "two words"


def test_an_unknown_way_of_decoding_is_an_error() -> None:
    with pytest.raises(UserError, match="decodes by CTC is not supported"):
        by_words(decoders.CTC())


def test_ends_are_those_of_the_config_and_those_declared() -> None:
    inner = tokenizer_named("byte_level").tokenizer
    names = ("<|endoftext|>", "<|im_end|>")
    assert Tokenizer(inner, [5]).eos_ids == {5, *map(inner.backend_tokenizer.token_to_id, names)}


def test_chat_renders_the_template() -> None:
    tokenizer = tokenizer_from(
        DATA / "byte_level.gguf",
        tokenizer__chat_template="{% for message in messages %}"
        "<|im_start|>{{ message.content }}{{ mood }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}",
    )
    assert tokenizer.has_chat_template
    messages = [{"role": "user", "content": "hello"}]
    ids = tokenizer.chat(messages, mood="!")
    assert tokenizer.decode(ids, skip_special=False) == "<|im_start|>hello!<|im_end|><|im_start|>"
    assert tokenizer.chat(messages, add_generation_prompt=False, mood="!") == ids[:-1]


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% if %}", "{{ messages + 1 }}"])
def test_a_refusing_template_is_one_line(template: str) -> None:
    tokenizer = tokenizer_from(DATA / "byte_level.gguf", tokenizer__chat_template=template)
    with pytest.raises(UserError, match="chat template refuses") as caught:
        tokenizer.chat([{"role": "user", "content": "x"}])
    assert "\n" not in str(caught.value)


def test_chat_without_a_template_names_raw() -> None:
    tokenizer = tokenizer_named("byte_level")
    assert not tokenizer.has_chat_template
    with pytest.raises(UserError, match="--raw"):
        tokenizer.chat([{"role": "user", "content": "x"}])
