"""Base models written as Hugging Face folders, and read back by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from medusa_decoding.errors import UserError
from medusa_decoding.models import BaseModel, Source, load_base_model, load_tokenizer, resolve
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.hf_folder import convert_base
from tests.tiny import CHAT_TEMPLATE, tiny_llama

from .gguf_files import DATA, random_model, write_gguf
from .goldens import read
from .test_gguf_weights import BASE, CASES, logits


def in_transformers(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options).eval()


def gguf(path: Path, config: Any = None, **options: Any) -> Source:
    return resolve(str(write_gguf(path, random_model(config or LlamaConfig(**BASE)), **options)))


def reference(source: Source) -> BaseModel:
    base = load_base_model(source)
    base.model.set_attn_implementation("eager")
    return base


@pytest.mark.parametrize("name", CASES)
def test_a_gguf_file_and_its_folder_give_equal_logits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = gguf(tmp_path / "m.gguf", case.config, extra=case.keys, tensors=case.tensors)
    base = reference(source)
    convert_base(source, tmp_path / "out")
    model = in_transformers(tmp_path / "out")
    assert type(model) is type(base.model) and model.dtype == torch.float32
    assert torch.equal(logits(model), logits(base.model))
    # The same digits: heads that were trained for the file fit the folder.
    assert load_base_model(resolve(str(tmp_path / "out"))).fingerprint == base.fingerprint


@pytest.mark.parametrize("vocabulary", ["byte_level", "sentence_piece"])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_transformers_and_this_project_read_the_tokenizer_alike(
    vocabulary: str, adds_bos: bool, tmp_path: Path
) -> None:
    size = len(GgufFile(DATA / f"{vocabulary}.gguf").metadata["tokenizer.ggml.tokens"])
    extra = {"tokenizer.chat_template": CHAT_TEMPLATE, "tokenizer.ggml.add_bos_token": adds_bos}
    config = LlamaConfig(**BASE | {"vocab_size": size})
    source = gguf(tmp_path / "m.gguf", config, vocabulary=f"{vocabulary}.gguf", extra=extra)
    ours = convert_base(source, tmp_path / "out").tokenizer
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in [*read("strings")[:200], "<|im_start|>user\nhi<|im_end|>\n"]:
        assert theirs(text)["input_ids"] == ours.encode(text), text
    messages = [{"role": "user", "content": "Who are you?"}]
    found = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert found == ours.chat(messages)
    assert theirs.eos_token_id == ours.tokenizer.eos_token_id
    assert theirs.model_max_length == BASE["max_position_embeddings"]
    again = load_tokenizer(resolve(str(tmp_path / "out")))
    assert again.encode("a b") == ours.encode("a b") and again.eos_ids == ours.eos_ids


def test_every_end_that_the_file_names_ends_a_text_in_transformers(tmp_path: Path) -> None:
    source = gguf(tmp_path / "m.gguf", extra={"tokenizer.ggml.eot_token_id": 7})
    base = convert_base(source, tmp_path / "out")
    assert 7 in base.tokenizer.eos_ids and len(base.tokenizer.eos_ids) > 1
    found = in_transformers(tmp_path / "out").generation_config
    assert found.eos_token_id == sorted(base.tokenizer.eos_ids)
    assert not found.do_sample


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_are_rounded_to_the_dtype_and_config_says_so(dtype: str, tmp_path: Path) -> None:
    source = gguf(tmp_path / "m.gguf")
    said: list[str] = []
    convert_base(source, tmp_path / "out", dtype=dtype, say=said.append)
    expected = load_base_model(source).model.state_dict()
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight, expected[name].to(getattr(torch, dtype))), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert f"as {dtype}" in said[0]


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    model = random_model(LlamaConfig(**BASE))
    with torch.no_grad():
        model.model.norm.weight[3] = 1e6
    source = resolve(str(write_gguf(tmp_path / "m.gguf", model)))
    with pytest.raises(UserError, match=r"'model.norm.weight' has values that float16 cannot hold"):
        convert_base(source, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_folder_keeps_its_dtype_and_its_own_files(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    in_transformers(folder).to(torch.bfloat16).save_pretrained(folder)
    # Older models' settings, which transformers warns about.
    settings = {"temperature": 0.6, "top_p": 0.9, "do_sample": False, "eos_token_id": [256, 65]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    convert_base(resolve(str(folder)), tmp_path / "out")
    model = in_transformers(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    for name, weight in in_transformers(folder).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_large_models_are_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medusa_decoding.models.hf_folder._LARGEST_FILE", "20KB")
    source = gguf(tmp_path / "m.gguf")
    convert_base(source, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    assert torch.equal(logits(in_transformers(tmp_path / "out")), logits(reference(source).model))
    assert load_base_model(resolve(str(tmp_path / "out"))).fingerprint == load_base_model(source).fingerprint


def test_what_is_written_may_be_read_by_others(tmp_path: Path) -> None:
    convert_base(resolve(str(tiny_llama(tmp_path / "tiny"))), tmp_path / "out")
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "out").iterdir()} == {usual}


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    source = resolve(str(tiny_llama(tmp_path / "tiny")))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already: give a new folder with --out"):
        convert_base(source, tmp_path / "out")
    with pytest.raises(UserError, match="'int4' is no dtype of a model's files"):
        convert_base(source, tmp_path / "new", dtype="int4")
    assert not (tmp_path / "new").exists()
