"""The published layouts, from files made by hand as the original implementation makes them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from medusa_decoding.errors import UserError
from medusa_decoding.heads import from_pretrained
from medusa_decoding.heads.formats import FORMATS, detect
from medusa_decoding.heads.formats.tensors import safetensors_names

from ..conftest import HIDDEN, VOCABULARY, MakeHeads
from .conftest import assert_same_proposals

# What published checkpoints say, whatever they hold.
PUBLISHED_CONFIG = {
    "base_model_name_or_path": "some/model",
    "medusa_num_heads": 2,
    "medusa_num_layers": 1,
    "transformers_version": "4.31.0",
}


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.nn.functional.silu(self.linear(x))


def published_heads(
    num_heads: int, num_layers: int, *, tied: bool = False, own: bool = True
) -> torch.nn.ModuleList:
    """Heads as plain modules; `tied` repeats one block object, a fault of the original implementation."""
    heads = []
    for _ in range(num_heads):
        blocks = [Block()] * num_layers if tied else [Block() for _ in range(num_layers)]
        projection = [torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)] if own else []
        heads.append(torch.nn.Sequential(*blocks, *projection))
    return torch.nn.ModuleList(heads)


def write(folder: Path, heads: torch.nn.ModuleList, *, pickled: bool, **config: Any) -> None:
    if pickled:
        torch.save(heads.state_dict(), folder / "medusa_lm_head.pt")
    else:
        save_file(
            {k: v.clone() for k, v in heads.state_dict().items()}, folder / "medusa_lm_head.safetensors"
        )
    (folder / "config.json").write_text(json.dumps({**PUBLISHED_CONFIG, **config}))


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_v1_says_what_the_original_modules_say_and_counts_heads_in_the_weights(
    tmp_path: Path, pickled: bool, num_layers: int
) -> None:
    modules = published_heads(5, num_layers)
    write(tmp_path, modules, pickled=pickled)
    assert detect(tmp_path) == "v1"
    heads = from_pretrained(tmp_path)
    assert heads.config.num_heads == 5
    assert (heads.config.num_layers, heads.config.vocabulary_size) == (num_layers, VOCABULARY)
    assert heads.config.base_model == "some/model"
    hidden = torch.randn(4, HIDDEN)
    logits = heads.logits(heads.features(hidden))
    for head in range(5):
        torch.testing.assert_close(logits[:, head], modules[head](hidden))


@pytest.mark.parametrize("pickled", [True, False])
def test_v2_takes_the_base_models_projection(tmp_path: Path, lm_head: torch.Tensor, pickled: bool) -> None:
    modules = published_heads(4, 1, own=False)
    write(tmp_path, modules, pickled=pickled, version="2")
    assert detect(tmp_path) == "v2"
    heads = from_pretrained(tmp_path)
    assert (heads.config.num_heads, heads.config.projection) == (4, "shared")
    assert heads.config.vocabulary_size is None
    heads.bind(lm_head)
    hidden = torch.randn(4, HIDDEN)
    logits = heads.logits(heads.features(hidden))
    for head in range(4):
        torch.testing.assert_close(logits[:, head], modules[head](hidden) @ lm_head.T)


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize(("own", "version"), [(True, "2"), (False, "1")])
def test_the_weights_tell_the_version_when_the_config_is_wrong(
    tmp_path: Path, pickled: bool, own: bool, version: str
) -> None:
    write(tmp_path, published_heads(2, 1, own=own), pickled=pickled, version=version)
    assert from_pretrained(tmp_path).config.projection == ("own" if own else "shared")


def test_weights_without_a_config_are_enough(tmp_path: Path) -> None:
    write(tmp_path, published_heads(2, 1), pickled=False)
    (tmp_path / "config.json").unlink()
    assert from_pretrained(tmp_path).config.num_heads == 2


def test_tied_blocks_come_apart(tmp_path: Path) -> None:
    write(tmp_path, published_heads(2, 2, tied=True), pickled=True)
    heads = from_pretrained(tmp_path)
    first, second = heads.blocks
    assert torch.equal(first.weight, second.weight)
    with torch.no_grad():
        first.weight.zero_()
    assert second.weight.abs().sum() > 0


def test_safetensors_are_preferred_to_a_pickle(tmp_path: Path) -> None:
    write(tmp_path, published_heads(3, 1), pickled=False)
    (tmp_path / "medusa_lm_head.pt").write_bytes(b"never read")
    assert from_pretrained(tmp_path).config.num_heads == 3


class Malicious:
    """Unpickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_does_not_run(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "medusa_lm_head.pt"
    content = {"0.0.linear.weight": torch.zeros(2, 2), "extra": Malicious(trace)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match=r"ask for the heads as \.safetensors") as caught:
        from_pretrained(tmp_path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    # The file is dangerous indeed: this is what a plain unpickling does.
    pickle.loads(pickle.dumps(Malicious(trace)))
    assert trace.exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], {"0.0.linear.weight": 3}, {0: torch.zeros(2)}, {"a": {}}]
)
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "medusa_lm_head.pt")
    with pytest.raises(UserError, match="more than named tensors"):
        from_pretrained(tmp_path)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(published_heads(1, 1), tmp_path / "medusa_lm_head.pt")
    with pytest.raises(UserError, match="more than plain tensors"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["medusa_lm_head.pt", "medusa_lm_head.safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, published_heads(2, 1), pickled=name.endswith(".pt"))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.0.linear.bias": None}, r"'1\.0\.linear\.bias' is missing"),
        ({"1.1.weight": None}, r"'1\.1\.weight' is missing"),
        ({"0.1.weight": None}, r"'1\.1\.weight' does not belong"),
        (
            {"1.1.weight": torch.zeros(VOCABULARY + 1, HIDDEN)},
            r"'1\.1\.weight' has shape \(24, 6\) where \(23, 6\)",
        ),
        ({"0.0.linear.weight": torch.zeros(HIDDEN, HIDDEN, dtype=torch.int64)}, "of type torch.int64"),
        ({"model.norm.weight": torch.zeros(HIDDEN)}, "'model.norm.weight' does not belong"),
        ({"99999999999.0.linear.bias": torch.zeros(HIDDEN)}, r"'2\.0\.linear\.weight' is missing"),
    ],
)
def test_tensors_that_disagree_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    state = {**published_heads(2, 1).state_dict(), **change}
    save_file({k: v for k, v in state.items() if v is not None}, tmp_path / "medusa_lm_head.safetensors")
    with pytest.raises(UserError, match=message):
        from_pretrained(tmp_path)


def test_a_file_of_other_tensors_holds_no_heads(tmp_path: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(3, 2)}, tmp_path / "medusa_lm_head.safetensors")
    with pytest.raises(UserError, match="no Medusa heads"):
        from_pretrained(tmp_path)


def test_shared_heads_are_written_out_per_head_as_v1(
    make_heads: MakeHeads, lm_head: torch.Tensor, tmp_path: Path
) -> None:
    heads = make_heads()
    FORMATS["v1"].save(heads, tmp_path)
    config, state = FORMATS["v1"].load(tmp_path)
    assert config.projection == "own"
    for head in range(3):
        assert torch.equal(state[f"{head}.1.weight"], lm_head)
    assert_same_proposals(from_pretrained(tmp_path), heads, exact=False)


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_the_config_is_what_the_engines_look_for(make_heads: MakeHeads, tmp_path: Path, layout: str) -> None:
    heads = make_heads(num_layers=1, base_model="some/model")
    FORMATS[layout].save(heads, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["base_model_name_or_path"] == "some/model"
    assert config["medusa_num_heads"] == config["num_medusa_heads"] == 3
    assert config["medusa_num_layers"] == 1
    assert config.get("version") == ("2" if layout == "v2" else None)
    # TGI takes the Medusa branch where this key is absent.
    assert "architectures" not in config
    names = safetensors_names(tmp_path / "medusa_lm_head.safetensors")
    kinds = ["0.linear.weight", "0.linear.bias"] + (["1.weight"] if layout == "v1" else [])
    assert sorted(names) == sorted(f"{head}.{kind}" for head in range(3) for kind in kinds)
