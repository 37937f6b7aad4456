"""llama.cpp's own server with its n-gram speculation, in a process of its own, for an interpreter that has
xllamacpp and nothing else.

    python llama_server_worker.py '{"path": "model.gguf", "threads": 2, "context": 512, "repack": true}'

Answers as `llama_worker.py` does, to `write` alone. Texts are written by the server's loop and clock; of its
kinds of speculation `ngram-simple`, which takes what followed the last tokens when they stood there before,
with the server's own settings.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

PACKAGE = "xllamacpp"


def open_server(asked: dict[str, Any]) -> Any:
    """A server of one sequence, greedy where a request says so."""
    package = import_module(PACKAGE)
    settings = package.CommonParams()
    settings.model.path = asked["path"]
    settings.n_ctx, settings.n_parallel = asked["context"], 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = asked["threads"]
    settings.no_extra_bufts = not asked["repack"]
    settings.speculative.types = [package.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    return package.Server(settings)


def write(server: Any, ids: list[int], count: int) -> dict[str, Any]:
    """`count` tokens after `ids`; the first comes out of the prompt."""
    answer = server.handle_completions(
        {"prompt": ids, "max_tokens": count, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    )
    if isinstance(answer, str):
        answer = json.loads(answer)
    times = answer["timings"]
    written = int(times["predicted_n"]) - 1
    return {
        "count": written,
        "steps": written - int(times.get("draft_n_accepted", 0)),
        "prefill_seconds": times["prompt_ms"] / 1000,
        "seconds": times["predicted_ms"] / 1000,
    }


def main() -> None:
    """Load, then answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = open_server(json.loads(sys.argv[1]))
    print(json.dumps({"version": version(PACKAGE)}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(write(server, asked["write"], asked["tokens"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
