"""Heads in the CPU engine guess what the torch heads guess."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medusa_decoding.decoding.protocols import Context
from medusa_decoding.engines.cpu.drafter import CpuDrafter
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.engines.cpu.packed import Weights, pack_linear, take_rows
from medusa_decoding.heads import HeadsConfig, MedusaDrafter, MedusaHeads
from medusa_decoding.heads.state import build_heads, state_of

from .random_models import ISAS, VOCABULARY, random_model, shape_of

# 40 channels fill no whole panel; 264 need two blocks of quantised activations.
SIZES = [40, 264]
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"num_layers": 0},
    "one layer": {},
    "one head": {"num_heads": 1, "projection": "own"},
    "two layers, calibrated": {"num_layers": 2, "calibration": [0.7, 1.0, 1.6]},
    "root": {"condition": "root"},
    "root, two layers, draft vocabulary": {"condition": "root", "num_layers": 2, "draft_vocabulary_size": 19},
    "own": {"projection": "own"},
    "own, draft vocabulary": {"projection": "own", "draft_vocabulary_size": 19, "num_layers": 2},
}


def random_heads(size: int, **fields: Any) -> MedusaHeads:
    values = {"num_heads": 3, "num_layers": 1, "hidden_size": size, "vocabulary_size": VOCABULARY, **fields}
    config, random = HeadsConfig(**values), np.random.default_rng(1)
    state = {
        name: torch.tensor(random.standard_normal(shape) / np.sqrt(size), dtype=torch.float32)
        for name, shape in config.expected_shapes()
        if name != "token_map"
    }
    if config.draft_vocabulary_size is not None:
        state["token_map"] = torch.tensor(random.permutation(VOCABULARY)[: config.draft_vocabulary_size])
    return build_heads(config, state)


def engine_of(size: int, weights: Weights, threads: int = 1, isa: str = "auto", **fields: Any) -> CpuEngine:
    return random_model(shape_of(hidden_size=size, **fields), seed=2).engine(weights, threads, isa)


def cpu_drafter(heads: MedusaHeads, engine: CpuEngine, top_k: int = 7) -> CpuDrafter:
    state = {name: tensor.numpy() for name, tensor in state_of(heads).items()}
    return CpuDrafter(engine, heads.config, state, top_k)


def torch_drafter(heads: MedusaHeads, engine: CpuEngine, top_k: int = 7) -> MedusaDrafter:
    """The same heads bound to the weights that the engine has."""
    tensors = random_model(engine.shape, seed=2).tensors
    embedding = torch.tensor(tensors["model.embed_tokens.weight"])
    heads.bind(torch.tensor(tensors["lm_head.weight"]) if not engine.shape.tied else embedding, embedding)
    return MedusaDrafter(heads, top_k)


def contexts(size: int, count: int) -> list[Context]:
    hidden = np.random.default_rng(3).standard_normal((count, size)).astype(np.float32)
    return [Context([5, (7 * i) % VOCABULARY], hidden[i]) for i in range(count)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_fp32_heads_propose_what_torch_heads_do(variant: str, size: int, tied: bool) -> None:
    heads, engine = random_heads(size, **VARIANTS[variant]), engine_of(size, "fp32", tied=tied)
    found = cpu_drafter(heads, engine).propose(contexts(size, 5))
    expected = torch_drafter(heads, engine).propose(contexts(size, 5))
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_allclose(np.log(one.probabilities), np.log(other.probabilities), atol=1e-4)
        assert one.tokens.dtype == np.int64 and one.probabilities.dtype == np.float64


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_heads_propose_nearly_the_same(variant: str) -> None:
    heads, engine = random_heads(264, **VARIANTS[variant]), engine_of(264, "int8")
    found = cpu_drafter(heads, engine, VOCABULARY).propose(contexts(264, 5))
    expected = torch_drafter(heads, engine, VOCABULARY).propose(contexts(264, 5))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(by_token(one), by_token(other), atol=0.15)
        np.testing.assert_allclose(one.probabilities.sum(-1), 1, rtol=1e-5)


def by_token(proposals: Any) -> NDArray[np.float64]:
    """(heads, tokens) log-probabilities in the order of token ids."""
    order = np.argsort(proposals.tokens, axis=-1)
    return np.log(np.take_along_axis(proposals.probabilities, order, -1))


@pytest.mark.parametrize("weights", ["int8", "fp32"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_neighbours_threads_and_instruction_sets_change_no_bit(variant: str, weights: Weights) -> None:
    heads, plain = random_heads(40, **VARIANTS[variant]), engine_of(40, weights, 1, "portable")
    drafter = cpu_drafter(heads, plain)
    asked = contexts(40, 9)
    expected = [drafter.propose([context])[0] for context in asked]
    for isa in ISAS:
        for threads in (1, 3):
            found = cpu_drafter(heads, engine_of(40, weights, threads, isa)).propose(asked)
            for one, other in zip(found, expected, strict=True):
                assert one.tokens.tobytes() == other.tokens.tobytes()
                assert one.probabilities.tobytes() == other.probabilities.tobytes()


def test_ties_go_to_the_lowest_target_id() -> None:
    model = random_model(shape_of(), seed=2)
    model.tensors["lm_head.weight"][:] = 0.0
    for fields in ({}, {"draft_vocabulary_size": 19}):
        heads = random_heads(48, **fields)
        (found,) = cpu_drafter(heads, model.engine("int8"), 4).propose(contexts(48, 1))
        ids = range(VOCABULARY) if heads.token_map is None else sorted(heads.token_map.tolist())
        assert found.tokens.tolist() == [list(ids)[:4]] * 3
        np.testing.assert_allclose(found.probabilities, 1 / len(ids), rtol=1e-6)


def test_there_are_no_more_guesses_than_tokens() -> None:
    heads = random_heads(48, draft_vocabulary_size=19)
    (found,) = cpu_drafter(heads, engine_of(48, "int8"), 50).propose(contexts(48, 1))
    assert found.tokens.shape == (3, 19)
    assert heads.token_map is not None
    assert [sorted(row) for row in found.tokens.tolist()] == [sorted(heads.token_map.tolist())] * 3
    assert cpu_drafter(heads, engine_of(48, "int8")).propose([]) == []


@pytest.mark.parametrize("weights", ["int8", "fp32"])
@pytest.mark.parametrize("count", [1, 16, 19])
def test_taken_rows_are_those_of_a_linear_packed_from_them(weights: Weights, count: int) -> None:
    random = np.random.default_rng(count)
    weight = random.standard_normal((VOCABULARY, 40)).astype(np.float32)
    bias = random.standard_normal(VOCABULARY).astype(np.float32)
    rows = random.permutation(VOCABULARY)[:count]
    whole = dict(pack_linear("all", weight, bias, weights, 1))
    expected = dict(pack_linear("few", weight[rows], bias[rows], weights, 1))
    found = take_rows(whole, "all", rows, 40)
    assert {f"few.{part}" for part in found} == expected.keys()
    per_channel = expected["few.weights"].size // (-(-count // 16) * 16)
    for part, array in found.items():
        assert array.shape == expected[f"few.{part}"].shape and array.dtype == expected[f"few.{part}"].dtype
        width = per_channel if part == "weights" else 1
        # What pads the last panel is never looked at.
        mine, theirs = (lanes(a, width, weights)[:count] for a in (array, expected[f"few.{part}"]))
        np.testing.assert_array_equal(mine, theirs)


def lanes(array: NDArray[Any], inputs: int, weights: Weights) -> NDArray[Any]:
    """(output channels, input channels) of a packed array."""
    together = 2 if weights == "int8" and inputs > 1 else 1
    return array.reshape(-1, inputs // together, 16, together).transpose(0, 2, 1, 3).reshape(-1, inputs)


def test_heads_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="size of the model"):
        cpu_drafter(random_heads(40), engine_of(48, "int8"))


def test_roots_that_are_no_tokens_are_refused() -> None:
    drafter = cpu_drafter(random_heads(48, condition="root"), engine_of(48, "int8"))
    hidden = contexts(48, 1)[0].hidden
    for root in (-1, VOCABULARY, 2**40):
        with pytest.raises(ValueError):
            drafter.propose([Context([root], hidden)])
