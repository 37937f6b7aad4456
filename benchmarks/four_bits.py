"""What it saves to keep int8 weights in 4 bits where they allow it: passes with and without, in one run.

    python benchmarks/four_bits.py MODEL [--rounds 40] [--threads N] [--json OUT]

For each instruction set of this processor the same int8 weights both ways: milliseconds of a pass by its
rows, after 200 tokens, and tokens per second of reading a prompt of 512; medians of interleaved rounds. The
engines take turns, so each finds the other's weights in the caches and a pass of one row, which comes first,
looks a little slow. Also how many of the weights are not the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from medusa_decoding import _native
from medusa_decoding.bench.machine import describe_machine
from medusa_decoding.decoding.protocols import as_rows
from medusa_decoding.engines.cpu.engine import CpuEngine, default_threads
from medusa_decoding.engines.cpu.packed import Array, pack_model
from medusa_decoding.models import resolve
from medusa_decoding.models.checkpoint import open_checkpoint
from medusa_decoding.tuning.trial import Trial

ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32)
CONTEXT, PROMPT = 200, 512


def unpacked(packed: Array) -> Array:
    """int8 weights of those in 4 bits, by the formula of native/packing.h."""
    groups = packed.reshape(-1, 320)
    lines = groups[:, :64].copy().view(np.int16).repeat(2, axis=1).reshape(-1, 2, 1, 32)
    words = groups[:, 64:].copy().view(np.uint16).reshape(-1, 4, 1, 32)
    codes = (words >> np.arange(0, 16, 4, dtype=np.uint16).reshape(1, 1, 4, 1) & 15).reshape(-1, 16, 32)
    values = codes.astype(np.int16) * lines[:, 0] + lines[:, 1]
    return (values >> 8).astype(np.int8).reshape(-1)


def differences(four: dict[str, Array], eight: dict[str, Array]) -> dict[str, int]:
    """Of all weights in 4 bits, those that are not the int8 ones."""
    names = [name for name, array in four.items() if array.dtype == np.uint8]
    off = sum(np.count_nonzero(unpacked(four[name]) != eight[name]) for name in names)
    return {"weights": sum(eight[name].size for name in names), "off_by_one": int(off)}


def prompt_seconds(engine: CpuEngine) -> float:
    """How long a prompt takes."""
    trial = Trial(engine, None)
    seconds = PROMPT * trial.fill(PROMPT)
    trial.close()
    return seconds


def warm(engine: CpuEngine) -> None:
    """Read the weights once."""
    handle, one = engine.open(), np.zeros(1, np.int64)
    engine.forward(as_rows(handle, one, 0, one - 1, one, np.ones(1, np.bool_)))
    engine.close(handle)


def measured(engines: dict[str, CpuEngine], rounds: int) -> dict[str, dict[str, Any]]:
    """Times of each engine."""
    passes: dict[str, dict[int, list[float]]] = {name: {rows: [] for rows in ROWS} for name in engines}
    prompts: dict[str, list[float]] = {name: [] for name in engines}
    trials = {name: Trial(engine, None) for name, engine in engines.items()}
    for trial in trials.values():
        trial.fill(CONTEXT)
    for number in range(rounds):
        for name, trial in trials.items():
            warm(engines[name])
            for rows in ROWS:
                passes[name][rows].append(trial.step(rows))
            if number % 8 == 0:
                prompts[name].append(prompt_seconds(engines[name]))
    return {
        name: {
            "milliseconds": {
                str(rows): round(1000 * statistics.median(found), 3) for rows, found in by.items()
            },
            "prompt_tokens_per_second": round(PROMPT / statistics.median(prompts[name])),
            "weight_bytes": engines[name].weight_bytes,
        }
        for name, by in passes.items()
    }


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    checkpoint = open_checkpoint(resolve(chosen.model))
    four, eight = (
        pack_model(checkpoint, "int8", chosen.threads, four_bits=narrow) for narrow in (True, False)
    )
    engines = {
        f"{isa}, {bits} bits": CpuEngine(checkpoint.shape, arrays, chosen.threads, isa)
        for isa in _native.instruction_sets()
        if isa != "portable"
        for bits, arrays in ((8, eight), (4, four))
    }
    report = {
        "machine": describe_machine(),
        "model": chosen.model,
        "settings": {
            "rounds": chosen.rounds,
            "threads": chosen.threads,
            "context": CONTEXT,
            "prompt": PROMPT,
        },
        "difference": differences(four, eight),
        "engines": measured(engines, chosen.rounds),
    }
    print(f"{report['difference']['off_by_one']} of {report['difference']['weights']} weights are one off")
    print(f"{'':16}" + "".join(f"{rows:>7}" for rows in ROWS) + "  prompt")
    for name, one in report["engines"].items():
        times = "".join(f"{time:7.2f}" for time in one["milliseconds"].values())
        print(f"{name:16}{times}{one['prompt_tokens_per_second']:8}/s")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
