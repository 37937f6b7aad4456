from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from medusa_decoding.errors import UserError
from medusa_decoding.models import load_base_model, load_tokenizer, resolve
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of a tiny model to spoil."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def test_a_folder_is_loaded(original: Path) -> None:
    base = load_base_model(resolve(str(original)))
    assert base.name == str(original)
    assert base.context_length == 256
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.model.dtype == torch.float32
    assert base.model.device.type == "cpu"
    assert base.tokenizer.decode(base.tokenizer.encode("héllo")) == "héllo"
    assert base.tokenizer.eos_ids == {256}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes_by_name(dtype: str, original: Path) -> None:
    base = load_base_model(resolve(str(original)), dtype=dtype)
    assert base.model.dtype == getattr(torch, dtype)


def test_the_tokenizer_alone_needs_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tokenizer = load_tokenizer(resolve(str(folder)))
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_base_model(resolve(str(folder)))


def test_ends_of_the_generation_config_count(folder: Path) -> None:
    GenerationConfig(eos_token_id=[256, 65]).save_pretrained(folder)
    assert load_tokenizer(resolve(str(folder))).eos_ids == {256, 65}


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil_weights(folder: Path, *, drop: str | None = None, cut: int | None = None) -> None:
    path = folder / "model.safetensors"
    if cut is not None:
        path.write_bytes(path.read_bytes()[:cut])
    else:
        weights = load_file(path)
        del weights[drop]
        save_file(weights, path, metadata={"format": "pt"})


SPOILERS = {
    "cut header": (lambda folder: spoil_weights(folder, cut=20), "are damaged"),
    "cut data": (lambda folder: spoil_weights(folder, cut=-100), "are damaged"),
    "no weights": (lambda folder: spoil_weights(folder, cut=0), "are damaged"),
    "missing weight": (
        lambda folder: spoil_weights(folder, drop="model.norm.weight"),
        "lacks 1 of the model's weights",
    ),
    "other shapes": (lambda folder: edit_config(folder, intermediate_size=40), "cannot be loaded"),
    "unknown type": (lambda folder: edit_config(folder, model_type="exotic"), "exotic"),
    "nonsense value": (lambda folder: edit_config(folder, hidden_size="wide"), "hidden_size"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
    "not a language model": (lambda folder: edit_config(folder, model_type="vit"), "cannot be loaded"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("[1]"), "cannot be loaded"),
    "own code": (
        lambda folder: edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "brings its own code, which is never run",
    ),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_spoilt_folder_is_one_line(name: str, folder: Path) -> None:
    spoil, message = SPOILERS[name]
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_base_model(resolve(str(folder)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "toaster"}, "'toaster' is no device"),
        ({"device": "cuda:63"}, "there is no device cuda:63 here; use --device cpu"),
        ({"dtype": "int4"}, "'int4' is no dtype; use auto, float64"),
        ({"quantization": "2bit"}, "'2bit' is no quantisation"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, Any], message: str, original: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_base_model(resolve(str(original)), **options)


def test_quantisation_without_its_package_names_the_pip_line(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"pip install 'medusa-decoding\[quantization\]'"):
        load_base_model(resolve(str(original)), quantization="4bit")


def test_adapters_without_their_package_name_the_pip_line(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'medusa-decoding\[adapters\]'"):
        load_base_model(resolve(str(original)), adapter="somewhere")


def test_an_adapter_changes_the_model_as_peft_says(original: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = load_base_model(resolve(str(original)))
    adapted = peft.get_peft_model(
        load_base_model(resolve(str(original))).model,
        peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    ).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = load_base_model(resolve(str(original)), adapter=str(tmp_path / "adapter"))
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(loaded.model(ids).logits, plain.model(ids).logits, atol=1e-3)
    assert type(loaded.model) is type(plain.model)
    assert loaded.fingerprint != plain.fingerprint


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere"])
def test_a_missing_adapter_is_one_line(name: str, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=name) as caught:
        load_base_model(resolve(str(original)), adapter=name)
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path) -> None:
    """In a process of its own, because the Hub's library reads these settings when it is imported."""
    code = (
        "from medusa_decoding.errors import UserError\n"
        "from medusa_decoding.models import load_base_model, resolve\n"
        "try: load_base_model(resolve('owner/name'))\n"
        "except UserError as error: print(error)"
    )
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    assert "the Hugging Face Hub cannot be reached and owner/name is neither" in ran.stdout
    assert ran.stdout.count("\n") == 1


@pytest.mark.real
def test_smollm2_answers_in_english(smollm2_path: Path) -> None:
    base = load_base_model(resolve(str(smollm2_path)))
    assert base.context_length == 8192
    prompt = base.tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    ids = torch.tensor([prompt])
    out = base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert base.tokenizer.decode(out[0, len(prompt) :].tolist()).startswith("The capital of France is Paris.")


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, medusa_decoding.models as m; m.resolve('a/b'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_attribute_errors() -> None:
    import medusa_decoding.models as models

    assert all(getattr(models, name) is not None for name in models.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = models.nothing
