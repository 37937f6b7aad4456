"""The distribution is that of `generate`'s own logits processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation import MaxLengthCriteria

from medusa_decoding.decoding.sampling import distribution
from medusa_decoding.transformers.settings import Settings
from tests.engines.tiny_models import VOCABULARY, model_of


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0.1, 3),
            "top_k": st.integers(0, 40),
            "top_p": st.floats(0.05, 1),
            "min_p": st.floats(0, 1),
            "repetition_penalty": st.floats(0.5, 2),
        },
    ),
    seed=st.integers(0, 999),
)
def test_probabilities_are_those_of_the_logits_processors(fields: dict[str, Any], seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, prompt = random.normal(size=VOCABULARY) * 3, random.integers(0, VOCABULARY, 6).tolist()
    config = GenerationConfig(do_sample=True, max_length=9, **fields)
    processors = model_of("llama")._get_logits_processor(config, 6, model_kwargs={})
    scores = processors(torch.tensor([prompt]), torch.from_numpy(logits)[None])
    expected = scores.softmax(-1)[0].numpy()

    ours = Settings.of(config, [MaxLengthCriteria(9)], 6, seed).sampling
    found = distribution(logits, ours, prompt, [])
    dense = np.zeros(VOCABULARY)
    dense[found.ids] = found.probabilities
    assert np.allclose(dense, expected, atol=1e-9)
