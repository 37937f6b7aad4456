"""What a pass of llama.cpp costs by its rows, in the form of `medusa profile --json`, for `medusa plot`.

    PYTHON benchmarks/llama_cpp_profile.py MODEL.gguf [--name smollm2] [--threads 2] [--rounds 15]
        [--no-repack] > benchmarks/smollm2-profile-llama-cpp.json

PYTHON is one that has llama-cpp-python; nothing of this project is imported but its worker's way of calling
it. A pass is one batch of n tokens with all their logits, behind a text that stays.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src" / "medusa_decoding" / "bench" / "peers"))

from llama_worker import Model

ROWS = (*range(1, 17), 20, 24, 28, 32)
CONTEXT = 256


def processor() -> str:
    """Its name."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()


def milliseconds(model: Any, rounds: int) -> list[float]:
    """Of each number of rows, medians of rounds that go up and down in turn."""
    model._model.eval([(7 * place + 3) % 40000 + 100 for place in range(CONTEXT)])
    found: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for number in range(rounds + 1):
        for rows in ROWS if number % 2 else reversed(ROWS):
            tokens = [(11 * place + number) % 40000 + 100 for place in range(rows)]
            started = time.perf_counter()
            model._rows(tokens)
            if number:
                found[rows].append(time.perf_counter() - started)
            model._model.n_tokens = CONTEXT
    return [round(1000 * statistics.median(found[rows]), 4) for rows in ROWS]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-repack", action="store_true")
    chosen = parser.parse_args()
    asked = {"path": chosen.model, "threads": chosen.threads, "context": 512, "repack": not chosen.no_repack}
    model = Model(asked)
    times = milliseconds(model, chosen.rounds)
    report = {
        "rows": list(ROWS),
        "milliseconds": times,
        "contexts": {str(CONTEXT): times},
        "draft_milliseconds": None,
        "bandwidth_bound_ms": None,
        "machine": {
            "cpu": processor(),
            "cores": chosen.threads,
            "os": platform.platform(),
        },
        "model": chosen.name or Path(chosen.model).stem,
        "engine": "llama.cpp" + " without repacking" * chosen.no_repack,
        "versions": {"llama-cpp-python": model.version},
        "threads": chosen.threads,
        "heads": None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
