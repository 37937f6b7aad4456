"""vLLM's layout, from files made by hand and against what its loader does with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medusa_decoding.errors import UserError
from medusa_decoding.heads import MedusaHeads, from_pretrained
from medusa_decoding.heads.formats import FORMATS, detect
from medusa_decoding.heads.state import StateDict

from ..conftest import DRAFT, HIDDEN, VOCABULARY, MakeHeads
from .conftest import assert_same_proposals

CONFIG: dict[str, Any] = {
    "architectures": ["MedusaModel"],
    "model_type": "medusa",
    "hidden_size": HIDDEN,
    "num_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": VOCABULARY,
    "truncated_vocab_size": None,
    "medusa_fc_bias": True,
    "original_lm_head": False,
}


def blocks(num_heads: int, *, bias: bool = True) -> StateDict:
    state = {f"blocks.{h}.layers.0.weight": torch.randn(HIDDEN, HIDDEN) for h in range(num_heads)}
    if bias:
        state |= {f"blocks.{h}.layers.0.bias": torch.randn(HIDDEN) for h in range(num_heads)}
    return state


def own(num_heads: int, rows: int = VOCABULARY) -> StateDict:
    return {f"lm_heads.{h}.weight": torch.randn(rows, HIDDEN) for h in range(num_heads)}


def load(folder: Path, state: StateDict, **config: Any) -> MedusaHeads:
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return from_pretrained(folder)


def head_output(state: StateDict, head: int, hidden: torch.Tensor) -> torch.Tensor:
    inner = hidden @ state[f"blocks.{head}.layers.0.weight"].T
    if f"blocks.{head}.layers.0.bias" in state:
        inner = inner + state[f"blocks.{head}.layers.0.bias"]
    return hidden + torch.nn.functional.silu(inner)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "medusa_heads."])
def test_own_projections_and_heads_counted_in_the_weights(tmp_path: Path, bias: bool, prefix: str) -> None:
    state = blocks(5, bias=bias) | own(5)
    heads = load(tmp_path, {prefix + name: tensor for name, tensor in state.items()}, medusa_fc_bias=bias)
    assert (heads.config.num_heads, heads.config.projection) == (5, "own")
    hidden = torch.randn(3, HIDDEN)
    logits = heads.logits(heads.features(hidden))
    for head in range(5):
        expected = head_output(state, head, hidden) @ state[f"lm_heads.{head}.weight"].T
        torch.testing.assert_close(logits[:, head], expected)


@pytest.mark.parametrize(
    ("name", "flag"), [("lm_head.weight", True), ("lm_heads.0.weight", True), ("lm_heads.0.weight", False)]
)
def test_one_projection_for_several_heads_is_the_base_models(
    tmp_path: Path, lm_head: torch.Tensor, name: str, flag: bool
) -> None:
    state = blocks(3) | {name: lm_head.clone()}
    heads = load(tmp_path, state, original_lm_head=flag)
    assert (heads.config.num_heads, heads.config.projection) == (3, "shared")
    heads.bind(lm_head)
    hidden = torch.randn(3, HIDDEN)
    logits = heads.logits(heads.features(hidden))
    for head in range(3):
        torch.testing.assert_close(logits[:, head], head_output(state, head, hidden) @ lm_head.T)


@pytest.mark.parametrize("rows", [DRAFT, VOCABULARY])
def test_projections_are_cut_with_the_token_map(tmp_path: Path, rows: int) -> None:
    token_map = torch.randperm(VOCABULARY)[:DRAFT]
    state = blocks(2) | own(2, rows) | {"token_map": token_map}
    heads = load(tmp_path, state, truncated_vocab_size=DRAFT)
    assert (heads.config.vocabulary_size, heads.config.draft_vocabulary_size) == (VOCABULARY, DRAFT)
    assert heads.token_map is not None and torch.equal(heads.token_map, token_map)
    assert heads.projection is not None
    for head in range(2):
        full = state[f"lm_heads.{head}.weight"]
        assert torch.equal(heads.projection[head], full if rows == DRAFT else full[token_map])


def test_a_map_of_the_whole_vocabulary_is_ignored_as_vllm_does(tmp_path: Path) -> None:
    state = blocks(2) | own(2) | {"token_map": torch.randperm(VOCABULARY)}
    heads = load(tmp_path, state)
    assert heads.config.draft_vocabulary_size is None and heads.token_map is None
    assert heads.projection is not None and torch.equal(heads.projection[1], state["lm_heads.1.weight"])


@pytest.mark.parametrize(
    ("extra", "config", "message"),
    [
        ({}, {"truncated_vocab_size": DRAFT}, "no 'token_map'"),
        (
            {"token_map": torch.arange(DRAFT) + VOCABULARY},
            {"truncated_vocab_size": DRAFT},
            "has shape|distinct ids",
        ),
        ({"token_map": torch.ones(VOCABULARY + 1, dtype=torch.int64)}, {}, "larger than vocabulary_size"),
        ({"token_map": torch.arange(DRAFT).float()}, {}, "of type torch.float32"),
        ({"token_map": torch.tensor(3)}, {}, "no dimensions"),
        ({"model.embed.weight": torch.zeros(1)}, {}, "does not belong"),
        ({"lm_heads.7.weight": torch.zeros(VOCABULARY, HIDDEN)}, {}, "is missing"),
        ({"blocks.9999999999.layers.0.bias": torch.zeros(HIDDEN)}, {}, "is missing"),
    ],
)
def test_tensors_that_disagree_are_named(
    tmp_path: Path, extra: StateDict, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, blocks(2) | own(2) | extra, **config)
    assert "\n" not in str(caught.value)


def test_missing_or_damaged_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("projection", ["shared", "own"])
@pytest.mark.parametrize("draft", [None, DRAFT])
def test_what_is_written_is_what_vllm_reads(
    make_heads: MakeHeads, lm_head: torch.Tensor, tmp_path: Path, projection: str, draft: int | None
) -> None:
    heads = make_heads(
        num_layers=2,
        projection=projection,
        draft_vocabulary_size=draft,
        base_model="some/model",
        base_fingerprint="a",
    )
    FORMATS["vllm"].save(heads, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    # vLLM renames by substring: any other key with "num" in it would replace one of these.
    assert {key for key in config if "num" in key} == {"num_heads", "num_hidden_layers"}
    assert (config["num_heads"], config["num_hidden_layers"], config["hidden_size"]) == (3, 2, HIDDEN)
    # With a draft vocabulary's size here, vLLM 0.32 looks for `token_map` among what it has loaded, in vain.
    assert (config["vocab_size"], config["truncated_vocab_size"]) == (VOCABULARY, None)
    assert config["medusa_fc_bias"] is True
    assert config["original_lm_head"] is (projection == "shared")
    assert config["architectures"] == ["MedusaModel"] and config["model_type"] == "medusa"
    state = load_file(tmp_path / "model.safetensors")
    names = {f"blocks.{h}.layers.{i}.{k}" for h in range(3) for i in range(2) for k in ("weight", "bias")}
    names |= {"lm_head.weight"} if projection == "shared" else {f"lm_heads.{h}.weight" for h in range(3)}
    assert set(state) == names | ({"token_map"} if draft else set())
    # vLLM builds every projection with a row per token of the target.
    rows = [tensor for name, tensor in state.items() if name.startswith("lm_head")]
    assert {tensor.shape for tensor in rows} == {(VOCABULARY, HIDDEN)}
    if projection == "shared":
        kept = slice(None) if draft is None else heads.token_map
        assert torch.equal(state["lm_head.weight"][kept], lm_head[kept])


@pytest.mark.parametrize("projection", ["shared", "own"])
def test_a_draft_vocabulary_is_known_here_and_never_left_in_vllm(
    make_heads: MakeHeads, lm_head: torch.Tensor, tmp_path: Path, projection: str
) -> None:
    heads = make_heads(draft_vocabulary_size=DRAFT, projection=projection)
    FORMATS["vllm"].save(heads, tmp_path)
    assert detect(tmp_path) == "vllm"
    loaded = from_pretrained(tmp_path)
    assert torch.equal(loaded.token_map, heads.token_map)
    if projection == "shared":
        loaded.bind(lm_head)
    assert_same_proposals(loaded, heads)
    state = load_file(tmp_path / "model.safetensors")
    hidden = torch.randn(50, HIDDEN)
    ours = heads.token_map[heads.logits(heads.features(hidden)).argmax(-1)]
    for head in range(heads.config.num_heads):
        rows = state["lm_head.weight" if projection == "shared" else f"lm_heads.{head}.weight"]
        theirs = (heads.features(hidden)[:, head] @ rows.T).argmax(-1)
        assert torch.equal(theirs, ours[:, head])
