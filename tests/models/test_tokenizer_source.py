"""Tokenizers of folders, compared with what transformers makes of the same folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    GemmaConfig,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen3Config,
)

from medusa_decoding.errors import UserError
from medusa_decoding.models import load_base_model, load_tokenizer, resolve
from medusa_decoding.models.fast_tokenizer import FastTokenizer
from tests.tiny import CHAT_TEMPLATE, tiny_llama

from .goldens import DATA, read

BYTES = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
MERGES = [("e", "r"), ("Ġ", "t"), ("Ġt", "h"), ("i", "n"), ("Ġ", "Ġ"), ("1", "2")]
BYTE_LEVEL = {**BYTES, **{left + right: 256 + place for place, (left, right) in enumerate(MERGES)}}
PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁",
    "t",
    "h",
    "e",
    "th",
    "▁th",
]
PIECE_MERGES = [("t", "h"), ("▁", "th")]


def llama3_like() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(BYTE_LEVEL, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|begin|>", "<|eot|>"])
    backend.add_tokens([AddedToken("<tool>", lstrip=True, normalized=False)])
    begin = backend.token_to_id("<|begin|>")
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    backend.enable_truncation(8)
    backend.enable_padding(length=8, pad_token="<|eot|>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|eot|>")
    tokenizer.chat_template = "{{ bos_token }}" + CHAT_TEMPLATE
    return tokenizer


def llama2_like() -> PreTrainedTokenizerFast:
    vocabulary = {piece: place for place, piece in enumerate(PIECES)}
    backend = Tokenizer(models.BPE(vocabulary, PIECE_MERGES, byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=["<e>"], **names)


def qwen() -> Qwen2Tokenizer:
    tokenizer = Qwen2Tokenizer(
        vocab=BYTE_LEVEL, merges=MERGES, extra_special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def gpt2() -> GPT2Tokenizer:
    return GPT2Tokenizer(vocab=BYTE_LEVEL, merges=MERGES)


def llama() -> LlamaTokenizer:
    vocabulary = {piece: place for place, piece in enumerate(PIECES)}
    return LlamaTokenizer(vocab=vocabulary, merges=PIECE_MERGES, add_bos_token=True)


KINDS: dict[str, tuple[Callable[[], Any], type[PreTrainedConfig]]] = {
    "Llama 3": (llama3_like, LlamaConfig),
    "Llama 2": (llama2_like, LlamaConfig),
    "Llama of transformers 5": (llama, LlamaConfig),
    "Qwen 2": (qwen, Qwen2Config),
    "Qwen 3": (qwen, Qwen3Config),
    "GPT-2 in a Llama": (gpt2, LlamaConfig),
    "another model": (llama3_like, GemmaConfig),
}


def save(folder: Path, kind: str) -> Path:
    make, config = KINDS[kind]
    make().save_pretrained(folder)
    config(eos_token_id=7).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes them."""
    values = json.loads(path.read_text()) if path.exists() else {}
    values = {key: value for key, value in (values | changes).items() if value is not None}
    path.write_text(json.dumps(values))


def assert_like_transformers(folder: Path) -> None:
    ours, theirs = load_tokenizer(resolve(str(folder))), AutoTokenizer.from_pretrained(str(folder))
    assert isinstance(ours.tokenizer, FastTokenizer)
    assert ours.tokenizer.get_vocab() == theirs.get_vocab()
    assert set(ours.tokenizer.all_special_ids) == set(theirs.all_special_ids)
    assert ours.tokenizer.eos_token_id == theirs.eos_token_id
    assert ours.tokenizer.special_tokens_map == theirs.special_tokens_map
    added = ours.tokenizer.added_tokens_decoder
    assert {key: repr(token) for key, token in added.items()} == {
        key: repr(token) for key, token in theirs.added_tokens_decoder.items()
    }
    marks = "".join(token.content for token in added.values())
    for text in [*read("strings")[::7], f"one{marks} two <tool> {marks} 12 3 ", "", "e\u0301"]:
        for special in (True, False):
            assert ours.encode(text, special=special) == theirs(text, add_special_tokens=special)["input_ids"]
    assert ours.has_chat_template == bool(theirs.chat_template)
    if theirs.chat_template:
        messages = [{"role": "user", "content": "hello <|im_end|>"}, {"role": "assistant", "content": "12"}]
        text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert ours.tokenizer.apply_chat_template(messages, add_generation_prompt=True) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_ids_of_transformers(kind: str, tmp_path: Path) -> None:
    assert_like_transformers(save(tmp_path, kind))


def test_tokens_that_only_the_config_has_are_added(tmp_path: Path) -> None:
    save(tmp_path, "Llama 3")
    token = {"content": "<tool>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
    place = str(load_tokenizer(resolve(str(tmp_path))).tokenizer.get_vocab()["<tool>"])
    new = {**token, "content": "<new>", "special": False}
    edit(
        tmp_path / "tokenizer_config.json",
        added_tokens_decoder={place: {**token, "special": True}, str(int(place) + 1): new},
        pad_token={"__type": "AddedToken", **token, "content": "<pad>"},
        image_token="<image>",
        additional_special_tokens=["<new>"],
    )
    assert_like_transformers(tmp_path)


def test_an_older_folder_names_its_tokens_in_a_file_of_its_own(tmp_path: Path) -> None:
    save(tmp_path, "Llama 2")
    edit(tmp_path / "tokenizer_config.json", bos_token=None, additional_special_tokens=None)
    bos = {"content": "<s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    edit(tmp_path / "special_tokens_map.json", bos_token=bos, additional_special_tokens=["<e>", "<f>"])
    assert_like_transformers(tmp_path)
    assert load_tokenizer(resolve(str(tmp_path))).tokenizer.special_tokens_map["bos_token"] == "<s>"


def test_special_tokens_may_be_plain_text(tmp_path: Path) -> None:
    save(tmp_path, "Llama 3")
    edit(tmp_path / "tokenizer_config.json", split_special_tokens=True)
    assert_like_transformers(tmp_path)


def test_templates_in_files_come_before_those_in_the_config(tmp_path: Path) -> None:
    save(tmp_path, "Qwen 2")
    tokenizer = load_tokenizer(resolve(str(tmp_path)))
    assert tokenizer.tokenizer.chat_template == CHAT_TEMPLATE
    edit(tmp_path / "tokenizer_config.json", chat_template="from the config")
    assert load_tokenizer(resolve(str(tmp_path))).tokenizer.chat_template == CHAT_TEMPLATE
    (tmp_path / "chat_template.jinja").unlink()
    assert load_tokenizer(resolve(str(tmp_path))).tokenizer.chat_template == "from the config"


def test_a_template_for_tools_is_taken_for_tools(tmp_path: Path) -> None:
    save(tmp_path, "Llama 3")
    (tmp_path / "chat_template.jinja").unlink()
    several = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | tojson }}"},
    ]
    edit(tmp_path / "tokenizer_config.json", chat_template=several)
    assert_like_transformers(tmp_path)
    tokenizer = load_tokenizer(resolve(str(tmp_path)))
    messages = [{"role": "user", "content": "x"}]
    assert tokenizer.decode(tokenizer.chat(messages)) == "plain"
    assert tokenizer.decode(tokenizer.chat(messages, tools=[{"a": "<ä>"}])) == '[{"a": "<ä>"}]'


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_ends_that_a_config_leaves_out_are_those_of_its_class(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    save(tmp_path, "Qwen 2")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    usual = AutoConfig.for_model(model_type).eos_token_id
    tokenizer = load_tokenizer(resolve(str(tmp_path)))
    declared = {tokenizer.tokenizer.eos_token_id, tokenizer.tokenizer.get_vocab()["<|im_end|>"]}
    assert tokenizer.eos_ids == declared | ({usual} if usual is not None else set())


def test_both_engines_have_the_same_tokenizer(tmp_path: Path) -> None:
    path = str(tiny_llama(tmp_path))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    alone, loaded = load_tokenizer(resolve(path)), load_base_model(resolve(path)).tokenizer
    assert type(alone.tokenizer) is type(loaded.tokenizer) is FastTokenizer
    assert alone.eos_ids == loaded.eos_ids == {3, 4, 256}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        lambda folder: edit(folder / "tokenizer_config.json", eos_token=None),
    ],
)
def test_what_only_transformers_knows_is_left_to_it(spoil: Callable[[Path], Any], tmp_path: Path) -> None:
    save(tmp_path, "Qwen 2")
    spoil(tmp_path)
    tokenizer = load_tokenizer(resolve(str(tmp_path)))
    assert not isinstance(tokenizer.tokenizer, FastTokenizer)
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", "[1]"),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"eos_token": 3}'),
        ("tokenizer_config.json", '{"eos_token": "e", "added_tokens_decoder": {"a": {}}}'),
        ("config.json", "[]"),
        ("generation_config.json", "no"),
    ],
)
def test_damage_is_one_line(file: str, text: str, tmp_path: Path) -> None:
    save(tmp_path, "Llama 3")
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_tokenizer(resolve(str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_torch_stays_out(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path, "Qwen 2") if kind == "folder" else DATA / "byte_level.gguf"
    code = (
        "import sys; from medusa_decoding.models import load_tokenizer, resolve\n"
        "load_tokenizer(resolve(sys.argv[1])).encode('text')\n"
        "sys.exit(' '.join({'torch', 'transformers'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
