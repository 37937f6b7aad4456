"""The CPU engine on the real model: the same text with heads and without, and how close int8 comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import medusa_decoding
from medusa_decoding.decoding import Rows
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.generation import GenerationOptions, Medusa
from tests.engines.cpu.random_models import Texts, random_tree, tree_alone
from tests.generation.test_real import write

pytestmark = pytest.mark.real

LICENSE = Path(__file__).parents[2] / "LICENSE"
TOKENS, PIECE = 1500, 100


@pytest.fixture(scope="module")
def cpu(smollm2_path: Path) -> Medusa:
    return load(tree=16)


def load(**options: Any) -> Medusa:
    return medusa_decoding.load("smollm2", progress=False, engine="cpu", threads=2, **options)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_have_the_same_bits_in_a_tree_beside_another_text_and_alone(cpu: Medusa, threads: int) -> None:
    assert isinstance(cpu.engine, CpuEngine)
    shape, arrays = cpu.engine.shape, cpu.engine.arrays
    random = np.random.default_rng(threads)
    texts, plain = Texts(CpuEngine(shape, arrays, threads)), CpuEngine(shape, arrays, 1)
    said = [cpu.encode(prompt) for prompt in ("Name three colours.", "Why do leaves fall?")]
    trees = {}
    for ids, piece, nodes in zip(said, (7, 64), (24, 5), strict=True):
        handle = texts.open()
        texts.feed(handle, ids, piece)
        trees[handle] = random_tree(random, nodes)
    expected = [
        row for ids, tree in zip(said, trees.values(), strict=True) for row in tree_alone(plain, ids, tree)
    ]
    assert texts.forward(trees) == expected


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.7, "top_p": 0.9, "seed": 11},
    "penalised": {"temperature": 0.7, "top_p": 0.9, "seed": 12, "repetition_penalty": 1.1},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_eight_prompts_get_the_same_text_whatever_the_tree(cpu: Medusa, settings: str) -> None:
    options = GenerationOptions.of(None, {"max_tokens": 64, **SETTINGS[settings]})
    plain, plain_statistics = write(cpu, options, speculative=False)
    assert plain_statistics.acceleration_rate == 1
    rates = []
    for tree in ("1", "4", "16", "auto"):
        fast, statistics = write(load(tree=tree), options, speculative=True)
        assert fast == plain
        rates.append(statistics.acceleration_rate)
    assert rates[0] == 1 and rates[1] > 1.1 and rates[2] > 1.2


@pytest.mark.parametrize("draft", ["heads", "lookup"])
def test_each_drafter_alone_changes_no_text(cpu: Medusa, draft: str) -> None:
    options = GenerationOptions.of(None, {"max_tokens": 24})
    plain, _ = write(cpu, options, speculative=False)
    fast, statistics = write(load(tree=8, draft=draft), options, speculative=True)
    assert fast == plain
    assert (statistics.looked_up > 0) == (draft == "lookup")
    assert (sum(statistics.drafted) > 0) == (draft == "heads")
    assert statistics.acceleration_rate > 1.1


def test_what_the_prompt_says_is_looked_up(cpu: Medusa) -> None:
    """A quotation is found in the prompt, by heads and lookup together and by lookup alone."""
    said = "The old lighthouse keeper, Tobias Wren, had lived on Gull Rock since 1931 and feared only fog."
    prompt = f'Repeat this sentence three times, word for word: "{said}"'
    heads = load(tree=8, draft="heads").generate(prompt, max_tokens=48)
    for draft in ("both", "lookup"):
        found = load(tree=8, draft=draft).generate(prompt, max_tokens=48)
        assert found.tokens == heads.tokens
        assert found.statistics.steps < 0.75 * heads.statistics.steps
        assert found.statistics.looked_up_accepted > 16


def test_one_text_is_the_same_beside_seven_others_and_alone(cpu: Medusa) -> None:
    from tests.generation.test_real import PROMPTS

    options = GenerationOptions.of(None, {"max_tokens": 32})
    together, _ = write(cpu, options, speculative=True)
    for prompt, tokens in zip(PROMPTS[:3], together, strict=False):
        assert cpu.generate(prompt, max_tokens=32).tokens == tokens
        assert cpu.generate(prompt, max_tokens=32, speculative=False).tokens == tokens


@pytest.fixture(scope="module")
def text(cpu: Medusa) -> list[int]:
    return cpu.tokenizer.encode(LICENSE.read_text(encoding="utf-8"))[:TOKENS]


@pytest.fixture(scope="module")
def exact(text: list[int]) -> NDArray[np.float32]:
    """(tokens, vocabulary) log-probabilities of the torch engine in float32."""
    return log_probabilities(medusa_decoding.load("smollm2", dtype="float32", progress=False), text)


def log_probabilities(medusa: Medusa, text: list[int]) -> NDArray[np.float32]:
    handle, found = medusa.engine.open(), []
    for start in range(0, len(text), PIECE):
        tokens = np.array(text[start : start + PIECE])
        count = len(tokens)
        places = np.arange(count)
        rows = Rows(
            np.full(count, handle), tokens, start + places, np.arange(count) - 1, np.ones(count, bool)
        )
        verified = medusa.engine.forward(rows)
        for row in range(count):
            logits = verified.logits(row)
            shifted = logits - logits.max()
            found.append((shifted - np.log(np.exp(shifted).sum())).astype(np.float32))
        medusa.engine.commit(places)
    medusa.engine.close(handle)
    return np.stack(found)


def divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence per token, in nats."""
    total = sum(
        float((np.exp(one, dtype=np.float64) * (one.astype(np.float64) - other)).sum())
        for one, other in zip(expected, found, strict=True)
    )
    return total / len(expected)


def perplexity(found: NDArray[np.float32], text: list[int]) -> float:
    return float(np.exp(-np.mean(found[np.arange(len(text) - 1), text[1:]])))


def test_int8_weights_cost_little(cpu: Medusa, text: list[int], exact: NDArray[np.float32]) -> None:
    found = log_probabilities(cpu, text)
    assert divergence(exact, found) <= 0.01
    assert perplexity(found, text) == pytest.approx(perplexity(exact, text), rel=0.01)


def test_fp32_weights_are_the_model(text: list[int], exact: NDArray[np.float32]) -> None:
    found = log_probabilities(load(heads=None, weights="fp32"), text)
    assert abs(divergence(exact, found)) <= 1e-6
    np.testing.assert_allclose(found, exact, atol=1e-3)
