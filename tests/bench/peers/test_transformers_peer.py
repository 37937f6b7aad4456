from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from medusa_decoding.bench.peers.quality import perplexity
from medusa_decoding.bench.peers.side import Prompt
from medusa_decoding.bench.peers.transformers_peer import Transformers, TransformersSide
from medusa_decoding.models import load_base_model, resolve
from tests.tiny import tiny_llama

IDS = list(b"the cat sat on the mat and the cat sat on the")
PROMPT = Prompt("", IDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def peers(folder: Path) -> Transformers:
    return Transformers(resolve(str(folder)), "cpu", torch.get_num_threads())


def text_after(folder: Path, count: int) -> list[int]:
    """One full pass per token, without a cache."""
    model, tokens = load_base_model(resolve(str(folder)), device="cpu").model, list(IDS)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(IDS) :]


def test_plain_and_prompt_lookup_write_the_models_own_text(peers: Transformers, folder: Path) -> None:
    expected = text_after(folder, 30)
    plain, lookup = peers.plain().write(PROMPT, 30), peers.prompt_lookup().write(PROMPT, 30)
    assert plain.tokens == lookup.tokens == expected
    assert (plain.count, plain.steps) == (29, 29)
    # The pass that reads the prompt may verify guesses, too.
    assert lookup.count <= 29
    assert plain.seconds > 0 < plain.prefill_seconds


def test_int8_writes_as_many_tokens_with_other_weights(peers: Transformers) -> None:
    side = peers.int8()
    assert side.write(PROMPT, 12).count == 11
    assert any("Quantized" in type(part).__name__ or "quantized" in str(type(part)) for part in parts(side))
    assert side.about.weights_key != peers.plain().about.weights_key


def parts(side: TransformersSide) -> list[object]:
    return list(side._model.modules())


def test_perplexity_is_that_of_one_pass_over_the_text(peers: Transformers, folder: Path) -> None:
    tokens = (IDS * 3)[:100]
    model = load_base_model(resolve(str(folder)), device="cpu", dtype="float64").model
    with torch.inference_mode():
        loss = model(torch.tensor([tokens]), labels=torch.tensor([tokens])).loss
    found = perplexity(peers.plain(), tokens)
    assert found == pytest.approx(math.exp(loss), rel=1e-4)
    coarse = perplexity(peers.int8(), tokens)
    assert coarse == pytest.approx(found, rel=0.1) and coarse != found
