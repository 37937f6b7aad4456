"""Names, shapes and config fields of each export, by a table that was written from the engines' loaders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medusa_decoding.export.config import ConvertConfig, Target
from medusa_decoding.export.run import convert
from medusa_decoding.export.vocabulary import without_draft_vocabulary
from medusa_decoding.heads import from_pretrained
from tests.tiny import HIDDEN_SIZE as D
from tests.tiny import VOCABULARY_SIZE as V

from .conftest import DRAFT as T
from .conftest import HEADS as K
from .conftest import MakeHeads, guesses, hidden_states
from .engines import tensorrt_logits, tgi_logits, vllm_logits, whole_logits

# One block per head. Block: (weight, bias).
BLOCK = {"weight": (D, D), "bias": (D,)}
SEQUENTIAL = {f"{h}.0.linear.{part}": shape for h in range(K) for part, shape in BLOCK.items()}
ROWS = {f"{h}.1.weight": (V, D) for h in range(K)}
VLLM = {f"blocks.{h}.layers.0.{part}": shape for h in range(K) for part, shape in BLOCK.items()}
LOOSE = {
    "base_model_name_or_path": "some/base",
    "medusa_num_heads": K,
    "medusa_num_layers": 1,
    "num_medusa_heads": K,
    "num_medusa_layers": 1,
    "hidden_size": D,
    "vocab_size": V,
}
VLLM_CONFIG = {
    "architectures": ["MedusaModel"],
    "model_type": "medusa",
    "hidden_size": D,
    "num_heads": K,
    "num_hidden_layers": 1,
    "vocab_size": V,
    "truncated_vocab_size": None,
    "medusa_fc_bias": True,
    "original_lm_head": True,
    "base_model_name_or_path": "some/base",
}
HEADS_FILE, VLLM_FILE = "medusa_lm_head.safetensors", "model.safetensors"
CUT = {"draft_vocabulary_size": T}
OWN = {"projection": "own"}

# to, heads, file of the weights, tensors, config.
TABLE: list[tuple[Target, dict[str, Any], str, dict[str, tuple[int, ...]], dict[str, Any]]] = [
    ("v1", {}, HEADS_FILE, SEQUENTIAL | ROWS, LOOSE),
    ("v1", OWN, HEADS_FILE, SEQUENTIAL | ROWS, LOOSE),
    ("v1", CUT, HEADS_FILE, SEQUENTIAL | ROWS, LOOSE),
    ("v2", {}, HEADS_FILE, SEQUENTIAL, LOOSE | {"version": "2"}),
    ("v2", CUT, HEADS_FILE, SEQUENTIAL, LOOSE | {"version": "2"}),
    ("tgi", {}, HEADS_FILE, SEQUENTIAL, LOOSE | {"version": "2"}),
    ("tgi", OWN, HEADS_FILE, SEQUENTIAL | ROWS, LOOSE),
    ("tensorrt-llm", CUT, HEADS_FILE, SEQUENTIAL | ROWS, LOOSE),
    ("vllm", {}, VLLM_FILE, VLLM | {"lm_head.weight": (V, D)}, VLLM_CONFIG),
    (
        "vllm",
        CUT,
        VLLM_FILE,
        # Its loader finds `token_map` among the parameters and not among what was loaded, and gives up; while
        # nothing is truncated, it passes over the map.
        VLLM | {"lm_head.weight": (V, D), "token_map": (T,)},
        VLLM_CONFIG,
    ),
    (
        "vllm",
        OWN,
        VLLM_FILE,
        VLLM | {f"lm_heads.{h}.weight": (V, D) for h in range(K)},
        VLLM_CONFIG | {"original_lm_head": False},
    ),
]


def exported(heads: Path, to: Target, base: Path, **fields: Any) -> Path:
    out = heads.parent / f"out-{to}"
    convert(ConvertConfig(heads=str(heads), to=to, out=out, base=str(base), **fields))
    return out


@pytest.mark.parametrize(("to", "fields", "file", "tensors", "config"), TABLE)
def test_names_shapes_and_config_are_those_of_the_loaders(
    make_heads: MakeHeads,
    base: Path,
    to: Target,
    fields: dict[str, Any],
    file: str,
    tensors: dict[str, tuple[int, ...]],
    config: dict[str, Any],
) -> None:
    out = exported(make_heads(**fields), to, base)
    assert {name: tuple(tensor.shape) for name, tensor in load_file(out / file).items()} == tensors
    found = json.loads((out / "config.json").read_text())
    assert found == config | {"base_model_name_or_path": str(base)}


@pytest.mark.parametrize("layers", [1, 2])
def test_a_whole_checkpoint_is_the_base_model_and_the_heads(
    make_heads: MakeHeads, base: Path, layers: int
) -> None:
    out = exported(make_heads(num_layers=layers), "full", base, tree="[[0],[11],[0,0]]")
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    inside = load_file(base / "model.safetensors")
    shapes = {
        f"medusa_head.{h}.{layer}.linear.{part}": shape
        for h in range(K)
        for layer in range(layers)
        for part, shape in BLOCK.items()
    } | {f"medusa_head.{h}.{layers}.weight": (V, D) for h in range(K)}
    assert set(index) == set(inside) | set(shapes)
    written = {name: load_file(out / file)[name] for name, file in index.items()}
    assert {name: tuple(written[name].shape) for name in shapes} == shapes
    assert all(torch.equal(written[name], tensor) for name, tensor in inside.items())
    config = json.loads((out / "config.json").read_text())
    extra = {key: config.pop(key) for key in ("medusa_num_heads", "medusa_num_layers", "medusa_config")}
    assert config == json.loads((base / "config.json").read_text())
    assert (extra["medusa_num_heads"], extra["medusa_num_layers"]) == (K, layers)
    assert extra["medusa_config"] == {
        "medusa_num_heads": K,
        "medusa_num_layers": layers,
        "medusa_choices": [[0], [11], [0, 0]],
        "top_k": 12,
        "posterior_threshold": 0.09,
        "posterior_alpha": 0.3,
    }
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("fields", [{}, CUT, OWN, OWN | CUT, {"num_layers": 2}, {"num_layers": 2} | CUT])
@pytest.mark.parametrize("to", ["v1", "vllm", "tgi", "tensorrt-llm", "full"])
def test_the_engines_guess_what_the_heads_guess(
    make_heads: MakeHeads, base: Path, lm_head: torch.Tensor, to: Target, fields: dict[str, Any]
) -> None:
    """Chains take the likeliest token, trees the k likeliest; version 2 alone loses the draft vocabulary."""
    folder = make_heads(**fields)
    out, hidden = exported(folder, to, base), hidden_states()
    logits = {
        "v1": lambda: tensorrt_logits(out, hidden),
        "tensorrt-llm": lambda: tensorrt_logits(out, hidden),
        "vllm": lambda: vllm_logits(out, hidden),
        "tgi": lambda: tgi_logits(out, hidden, lm_head),
        "full": lambda: whole_logits(out, hidden),
    }[to]()
    heads = from_pretrained(folder)
    if (to, fields) == ("tgi", CUT):
        heads = without_draft_vocabulary(heads)
    ranks = 1 if to in ("vllm", "tgi") else 10
    expected = torch.tensor([proposals.tokens.tolist() for proposals in guesses(heads, lm_head, ranks)])
    assert torch.equal(logits.topk(ranks, -1).indices, expected)
