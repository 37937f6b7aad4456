"""Every row of a tree pass has the logits and hidden state of its path's plain forward, per architecture.

Contexts are shorter and longer than the sliding windows (5), and rows stand at their edge.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medusa_decoding.decoding import Decoder, Sequence
from medusa_decoding.engines import TorchEngine
from medusa_decoding.engines.support import TESTED
from tests.decoding.toy import decoded
from tests.engines.passes import FLOAT32_INSIDE, TOLERANCE, Passes, random_tree
from tests.engines.tiny_models import ARCHITECTURES, WINDOW, model_of, plain

ROUGH = {"deepseek_v3": FLOAT32_INSIDE, "gemma2": FLOAT32_INSIDE}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_equal_plain_forwards(name: str) -> None:
    model, random = model_of(name), np.random.default_rng(len(name))
    passes = Passes(model, TorchEngine(model), ROUGH.get(name, TOLERANCE))
    prompts = [random.integers(0, 37, size).tolist() for size in (WINDOW - 2, 2 * WINDOW + 3)]
    handles = [passes.open() for _ in prompts]
    for handle, prompt in zip(handles, prompts, strict=True):
        passes.feed(handle, prompt[:2])
        passes.feed(handle, prompt[2:])
    for sizes, reach in (((8, 7), 99), ((1, 6), 99), ((14, 11), 2), ((2, 5), 99)):
        trees = {
            handle: random_tree(random, size, reach) for handle, size in zip(handles, sizes, strict=True)
        }
        passes.verify(trees)
        passes.commit(trees, {handle: int(random.integers(len(tree))) for handle, tree in trees.items()})
    for handle in handles:
        passes.check_cache(handle)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_decoding_equals_generate(name: str) -> None:
    model, prompt = model_of(name), [3, 1, 4, 1, 5, 9, 2, 6]
    text = Sequence(prompt, max_tokens=8)
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert decoded(Decoder(TorchEngine(model), prefill_rows=3), text) == [expected[0, len(prompt) :].tolist()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_tiny_models_are_sensitive(name: str) -> None:
    """Another token anywhere within reach changes the logits, so a wrong mask or place cannot go unseen."""
    model, text = model_of(name), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    logits, _ = plain(model, text)
    for place in range(len(text) - WINDOW + 1, len(text)):
        changed, _ = plain(model, [*text[:place], 30, *text[place + 1 :]])
        assert (changed[-1] - logits[-1]).abs().max() > 1e-3


def test_all_that_count_as_tested_are_tested() -> None:
    assert {model_of(name).config.model_type for name in ARCHITECTURES} >= TESTED
