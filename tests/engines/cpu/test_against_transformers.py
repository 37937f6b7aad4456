"""Logits of tiny random models, saved as folders, beside those of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.engines.cpu.packed import Weights, pack_model
from medusa_decoding.models import resolve
from medusa_decoding.models.checkpoint import open_checkpoint
from tests.models.llama_models import BASE, CONFIGS, LLAMA3, TOKENS, save_model

from .random_models import Texts, chain

# With frequencies that a short text passes through whole: all three ranges of the scaling count.
EARLY = LLAMA3 | {"original_max_position_embeddings": 32, "rope_theta": 10000.0}
MODELS: dict[str, PreTrainedConfig] = CONFIGS | {
    "llama 3.1, early": LlamaConfig(**BASE | {"head_dim": 32}, rope_parameters=dict(EARLY)),
}
TEXT = np.random.default_rng(5).integers(0, TOKENS, 120).tolist()


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), MODELS[request.param])


def logits_of(folder: Path, weights: Weights) -> NDArray[np.float64]:
    """(tokens, vocabulary) of the CPU engine, prefilled in pieces."""
    checkpoint = open_checkpoint(resolve(str(folder)))
    engine = CpuEngine(checkpoint.shape, pack_model(checkpoint, weights, 1), threads=1)
    texts = Texts(engine)
    handle, found = texts.open(), []
    for start in range(0, len(TEXT), 50):
        trees = {handle: chain(TEXT[start : start + 50])}
        verified = engine.forward(texts.rows(trees))
        found += [verified.logits(row) for row in range(len(trees[handle]))]
        texts.commit(trees, {handle: len(trees[handle]) - 1})
    return np.stack(found)


def plain_logits(folder: Path) -> NDArray[np.float64]:
    """(tokens, vocabulary) of transformers in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.inference_mode():
        found: NDArray[np.float64] = model(torch.tensor([TEXT])).logits[0].numpy()
    return found


def test_fp32_logits_are_those_of_transformers(folder: Path) -> None:
    expected = plain_logits(folder)
    assert np.abs(logits_of(folder, "fp32") - expected).max() < 1e-5 * expected.std()


def test_int8_logits_are_close(folder: Path) -> None:
    expected, found = (log_softmax(logits) for logits in (plain_logits(folder), logits_of(folder, "int8")))
    assert (np.exp(expected) * (expected - found)).sum(-1).mean() < 2e-4


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
