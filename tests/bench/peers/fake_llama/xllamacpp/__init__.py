"""A stand-in for xllamacpp, for the part of it that the worker uses: half of its tokens are guesses.

FAKE_LLAMA says what goes wrong: "crashes repacked".
"""

from __future__ import annotations

import os
import signal
from enum import Enum
from types import SimpleNamespace
from typing import Any


class common_speculative_type(Enum):
    COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE = 6


class CommonParams(SimpleNamespace):
    def __init__(self) -> None:
        parts = {name: SimpleNamespace() for name in ("model", "cpuparams", "cpuparams_batch", "speculative")}
        super().__init__(**parts)


class Server:
    def __init__(self, settings: Any) -> None:
        assert settings.speculative.types == [common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        assert settings.n_parallel == 1 and settings.cpuparams.n_threads >= 1
        self._crashes = os.environ.get("FAKE_LLAMA") == "crashes repacked" and not settings.no_extra_bufts

    def handle_completions(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._crashes:
            os.kill(os.getpid(), signal.SIGSEGV)
        assert asked["temperature"] == 0 and asked["ignore_eos"] and not asked["cache_prompt"]
        count = asked["max_tokens"]
        accepted = {"draft_n_accepted": (count - 1) // 2} if count > 2 else {}
        times = {"prompt_ms": 5.0 * len(asked["prompt"]), "predicted_n": count, "predicted_ms": 10.0 * count}
        return {"choices": [{"text": "?"}], "timings": times | accepted}
