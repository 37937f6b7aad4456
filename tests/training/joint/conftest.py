from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.distill.answers import append_records
from medusa_decoding.training import TrainingConfig
from tests.tiny import tiny_llama

PERIOD = [10, 20, 30, 40]
MakeConfig = Callable[..., TrainingConfig]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture
def make_config(model: Path, tmp_path: Path) -> MakeConfig:
    """A Medusa-2 config for a text that repeats four tokens, begun at another one in each answer."""
    data = tmp_path / "data" / "answers.jsonl"
    data.parent.mkdir()
    append_records(
        data,
        (
            {"id": number, "prompt_ids": [number, 3], "answer_ids": (PERIOD * 4)[number % 4 :][:11]}
            for number in range(30)
        ),
    )
    defaults: dict[str, Any] = {
        "model": str(model), "data": data, "out": tmp_path / "heads", "num_heads": 3, "draft_vocabulary": 8,
        "epochs": 2, "batch_tokens": 32, "learning_rate": 0.02, "validation_fraction": 0.1,
        "method": "medusa2", "joint_epochs": 2, "lora_rank": 4, "forward_tokens": 30,
        "compute_dtype": "float32",
    }  # fmt: skip

    def make(**fields: Any) -> TrainingConfig:
        return TrainingConfig.of(**{**defaults, **fields})

    return make
