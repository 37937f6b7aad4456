"""Checkpoints of base model and heads, from files made by hand as Medusa 1.0 and its readers make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medusa_decoding.errors import UserError
from medusa_decoding.heads import from_pretrained
from medusa_decoding.heads.formats import FORMATS, detect, full
from medusa_decoding.heads.state import StateDict, state_of

from ..conftest import DRAFT, HIDDEN, VOCABULARY, MakeHeads
from .conftest import assert_same_proposals, same_tensors
from .test_medusa_lm_head import published_heads

# The base model's fields, and what published checkpoints say of the heads, whatever they hold.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": VOCABULARY,
    "medusa_num_heads": 2,
    "medusa_num_layers": 1,
}
BASE = "model-00001-of-00003.safetensors"
SHARDS = ("model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors")


def inside(num_heads: int, num_layers: int = 1, prefix: str = "medusa_head.") -> StateDict:
    """Heads as they are named among a base model's tensors."""
    return {
        f"{prefix}{name}": tensor.clone()
        for name, tensor in published_heads(num_heads, num_layers).state_dict().items()
    }


def write(folder: Path, state: StateDict, **config: Any) -> None:
    """A sharded checkpoint, the heads in its last two files; the base model's own file is not there."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    names = sorted(state)
    halves = dict(zip(SHARDS, (names[::2], names[1::2]), strict=True))
    for file, held in halves.items():
        save_file({name: state[name] for name in held}, folder / file)
    homes = {"model.norm.weight": BASE, "lm_head.weight": BASE}
    homes |= {name: file for file, held in halves.items() for name in held}
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_heads_are_counted_in_the_weights_and_the_base_model_is_not_read(
    tmp_path: Path, num_layers: int
) -> None:
    state = inside(5, num_layers)
    write(tmp_path, state)
    assert detect(tmp_path) == "full"
    heads = from_pretrained(tmp_path)
    assert (heads.config.num_heads, heads.config.num_layers) == (5, num_layers)
    assert (heads.config.vocabulary_size, heads.config.projection) == (VOCABULARY, "own")
    expected = {name.removeprefix("medusa_head."): tensor for name, tensor in state.items()}
    assert same_tensors(state_of(heads), expected)


def test_heads_without_projections_take_the_base_models(tmp_path: Path, lm_head: torch.Tensor) -> None:
    state = {name: tensor for name, tensor in inside(2).items() if ".1.weight" not in name}
    write(tmp_path, state)
    heads = from_pretrained(tmp_path)
    assert (heads.config.projection, heads.config.vocabulary_size) == ("shared", VOCABULARY)
    heads.bind(lm_head)


@pytest.mark.parametrize(
    ("prefix", "config"),
    [
        ("medusa_head.", {"model_type": "medusa"}),
        ("medusa_head.", {"medusa_num_heads": None, "medusa_config": {"medusa_num_heads": 3}}),
        ("medusa_heads.", {"medusa": {"num_medusa_heads": 3, "num_medusa_layers": 1}}),
    ],
    ids=["MLC-LLM", "RTP-LLM", "ModelOpt"],
)
def test_relatives_in_a_single_file_are_known_by_their_tensors(
    tmp_path: Path, prefix: str, config: dict[str, Any]
) -> None:
    content = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(content))
    save_file(inside(3, prefix=prefix) | {"model.norm.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    assert detect(tmp_path) == "full"
    assert from_pretrained(tmp_path).config.num_heads == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.0.linear.bias": None}, r"'1\.0\.linear\.bias' is missing"),
        ({"1.1.weight": torch.zeros(VOCABULARY, HIDDEN + 1)}, r"'1\.1\.weight' has shape \(23, 7\) where"),
        ({"0.0.linear.weight": torch.zeros(HIDDEN, HIDDEN, dtype=torch.int8)}, "of type torch.int8"),
        ({"0.0.linear.input_scale": torch.ones(1)}, r"'0\.0\.linear\.input_scale' does not belong"),
    ],
)
def test_tensors_that_disagree_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    state = inside(2) | {f"medusa_head.{name}": tensor for name, tensor in change.items()}
    write(tmp_path, {name: tensor for name, tensor in state.items() if tensor is not None})
    with pytest.raises(UserError, match=message) as caught:
        from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["../stolen.safetensors", "/etc/passwd", 3, ""])
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, file: Any) -> None:
    write(tmp_path, inside(2))
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"medusa_head.0.0.linear.weight": file}})
    )
    with pytest.raises(UserError, match="does not say which file has which tensor"):
        from_pretrained(tmp_path)


def test_pickled_checkpoints_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"pickled files.*as \.safetensors"):
        from_pretrained(tmp_path)


def test_of_a_hub_repository_only_the_files_with_heads_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def give(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append({pattern for pattern in allow_patterns if pattern.startswith("model")})
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", give)
    write(tmp_path, inside(2))
    assert from_pretrained("some/full-model").config.num_heads == 2
    # First what heads alone would have, then what tells of others, then the files with heads.
    assert asked == [set(), {full.INDEX_FILE}, {full.INDEX_FILE, *SHARDS}]


def base_folder(folder: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if not key.startswith("medusa")}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"model.norm.weight": torch.ones(HIDDEN)}, folder / "model.safetensors")


@pytest.mark.parametrize("fields", [{}, {"projection": "own", "num_layers": 2}, {"num_layers": 0}])
def test_heads_are_added_to_their_base_model(
    make_heads: MakeHeads, lm_head: torch.Tensor, tmp_path: Path, fields: dict[str, Any]
) -> None:
    heads = make_heads(**fields)
    base_folder(tmp_path)
    FORMATS["full"].save(heads, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    assert set(load_file(tmp_path / "model-00001-of-00002.safetensors")) == {"model.norm.weight"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["medusa_num_heads"], config["hidden_size"]) == (3, HIDDEN)
    loaded = from_pretrained(tmp_path)
    expected = state_of(heads)
    if heads.config.projection == "shared":
        expected |= {f"{head}.{heads.config.num_layers}.weight": lm_head for head in range(3)}
    assert same_tensors(state_of(loaded), expected)
    assert_same_proposals(loaded, heads, exact=False)


def test_a_base_model_in_several_files_gets_one_more(make_heads: MakeHeads, tmp_path: Path) -> None:
    files = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    names = dict(zip(("model.norm.weight", "lm_head.weight"), files, strict=True))
    for name, file in names.items():
        save_file({name: torch.ones(HIDDEN)}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (tmp_path / "config.json").write_text("{}")
    FORMATS["full"].save(make_heads(projection="own"), tmp_path)
    homes = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    expected = {f"model-0000{place}-of-00003.safetensors" for place in (1, 2, 3)}
    assert set(homes.values()) == expected == {path.name for path in tmp_path.glob("*.safetensors")}
    assert all(name in load_file(tmp_path / file) for name, file in homes.items())
    assert from_pretrained(tmp_path).config.num_heads == 3


def test_what_cannot_be_added_is_refused(make_heads: MakeHeads, tmp_path: Path) -> None:
    heads = make_heads()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no base model"):
        FORMATS["full"].save(heads, tmp_path)
    base_folder(tmp_path)
    for fields, message in (
        ({"condition": "root"}, "see the root"),
        ({"draft_vocabulary_size": DRAFT}, "draft"),
    ):
        with pytest.raises(UserError, match=message):
            FORMATS["full"].save(make_heads(**fields), tmp_path)
    FORMATS["full"].save(heads, tmp_path)
    with pytest.raises(UserError, match="holds heads already"):
        FORMATS["full"].save(heads, tmp_path)
