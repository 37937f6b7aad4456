"""The two lines of the documentation on the real model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medusa_decoding.models import load_base_model, resolve
from medusa_decoding.transformers import medusa_generate


@pytest.mark.real
def test_packaged_heads_are_found_and_write_the_text_of_generate(smollm2_path: Path) -> None:
    base = load_base_model(resolve(str(smollm2_path)), dtype="float32")
    prompt = base.tokenizer.chat([{"role": "user", "content": "Why is the sky blue?"}])
    asked = {"inputs": torch.tensor([prompt]), "max_new_tokens": 48}
    medusa = medusa_generate(draft="heads")
    found = base.model.generate(**asked, custom_generate=medusa)
    assert torch.equal(found, base.model.generate(**asked))
    assert medusa.statistics.acceleration_rate > 1.2
