"""Small results of each kind, as the commands write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
MACHINE = {"cpu": "A Processor", "cores": 2, "os": "Linux"}


def profile(engine: str = "cpu-int8-avx2", slope: float = 1.0) -> Json:
    """Of three rows after two contexts."""
    times = [4.0, 4.0 + slope, 4.0 + 3 * slope]
    return {
        "rows": [1, 2, 4],
        "milliseconds": times,
        "contexts": {"2048": [10.0, 11.0, 13.0], "256": times},
        "draft_milliseconds": 0.5,
        "weight_bytes": 100,
        "read_bandwidth_gb_s": 30.0,
        "bandwidth_bound_ms": 3.5,
        "machine": MACHINE,
        "model": "smollm2",
        "engine": engine,
        "threads": 2,
        "heads": None,
    }


def bench() -> Json:
    """Two categories, one of which has no step to measure."""
    return {
        "machine": MACHINE,
        "model": "smollm2",
        "engine": {"name": "CpuEngine"},
        "drafting": "packaged:smollm2 and prompt lookup",
        "settings": {"tree": "auto", "temperature": 0.0},
        "variants": {"medusa": {"acceleration_rate": 1.8, "speedup": 1.3}},
        "categories": {
            "math_reasoning": {"acceleration_rate": 2.0, "speedup": 1.5},
            "qa": {"acceleration_rate": 1.5, "speedup": 1.1},
            "empty": {"acceleration_rate": None, "speedup": None},
        },
    }


def drafters() -> Json:
    """Two categories and all."""

    def sides(lookup: float) -> Json:
        return {
            "texts": 3,
            **{
                side: {"acceleration_rate": 2.0, "tokens_per_second": 9.0, "speedup": speedup}
                for side, speedup in (("heads", 1.2), ("lookup", lookup), ("both", lookup + 0.5))
            },
        }

    return {
        "machine": MACHINE,
        "model": "smollm2",
        "heads_name": "packaged:smollm2",
        "suite": "s.jsonl",
        "settings": {},
        "identical": True,
        "categories": {"all": sides(1.4), "qa": sides(1.0), "rag": sides(3.0)},
    }


def side(speedup: float, rate: float, rows: float) -> Json:
    """One way to decode."""
    return {"acceleration_rate": rate, "rows_per_step": rows, "speedup": speedup, "identical": 3}


def head_counts() -> Json:
    """Two heads: the second costs more than it brings."""
    return {
        "machine": MACHINE,
        "model": "smollm2",
        "heads_name": "packaged:smollm2",
        "engine": "cpu-int8-avx2",
        "suite": "s.jsonl",
        "prompts": 3,
        "heads": [
            {"heads": 1, "drafting_ms": 0.4, "16_rows": side(0.9, 1.6, 16.0), "auto": side(1.25, 1.5, 4.0)},
            {"heads": 2, "drafting_ms": 0.5, "16_rows": side(0.8, 1.9, 16.0), "auto": side(1.2, 1.7, 5.0)},
        ],
    }


def tree_sizes() -> Json:
    """Three sizes, the second the fastest."""
    return {
        "machine": MACHINE,
        "model": "smollm2",
        "heads_name": "packaged:smollm2",
        "drafting": "packaged:smollm2",
        "engine": "cpu-int8-avx2",
        "suite": "s.jsonl",
        "prompts": 3,
        "trees": [
            {"rows": 2, "side": side(1.1, 1.4, 2.0)},
            {"rows": 4, "side": side(1.3, 1.6, 4.0)},
            {"rows": 16, "side": side(0.9, 1.9, 16.0)},
        ],
        "auto": side(1.35, 1.65, 4.5),
    }


def tuning() -> Json:
    """Two heads at two temperatures."""
    return {
        "model": "smollm2",
        "heads": "h",
        "medusa_choices": [[0]],
        "measured": [
            {"temperature": 0.0, "texts": 40, "top": {"1": [0.5, 0.3], "3": [0.7, 0.45], "10": [0.8, 0.6]}},
            {"temperature": 0.7, "texts": 40, "top": {"1": [0.4, 0.2], "3": [0.6, 0.35], "10": [0.7, 0.5]}},
        ],
    }


def training(kept: int | None = None) -> Json:
    """Two epochs."""
    return {
        "recipe": {},
        "base": {"model": "smollm2"},
        "machine": {"processor": "A Processor", "cores": 2},
        "history": [
            {"epoch": 1, "loss": 3.0, "top1": [0.4, 0.2], "top5": [0.6, 0.4]},
            {"epoch": 2, "loss": 2.0, "top1": [0.45, 0.25], "top5": [0.65, 0.45]},
        ],
        "kept_epoch": kept,
    }


def estimate(median: float, width: float = 1.0) -> Json:
    """A median and its interval."""
    return {"median": median, "low": median - width, "high": median + 2 * width, "prompts": 5}


def against() -> Json:
    """This project, its engine alone, and another program."""

    def one(name: str, speed: float, ratio: float | None, perplexity: float | None) -> Json:
        return {
            "name": name,
            "peer": name.split(" ")[0],
            "description": "a program",
            "weights": "int8",
            "versions": {},
            "perplexity": perplexity,
            "tokens_per_second": estimate(speed),
            "prefill_tokens_per_second": estimate(100.0),
            "ratio": None if ratio is None else estimate(ratio, 0.1),
            "acceleration_rate": None,
            "categories": {},
            "runs": [],
        }

    return {
        "kind": "against",
        "version": 1,
        "command": "medusa bench",
        "machine": MACHINE,
        "model": "smollm2",
        "threads": 2,
        "drafting": "packaged:smollm2",
        "suite": {"file": "s.jsonl"},
        "prompts": [],
        "sides": [
            one("medusa", 90.0, None, 15.0),
            one("llama.cpp Q4_0", 30.0, 3.0, 16.5),
            one("autoregressive", 60.0, 1.5, 15.0),
        ],
        "skipped": [],
        "skipped_prompts": [],
    }


def decode() -> Json:
    """The tree of the documentation: "The" is decided, "cat" and "sat" are accepted, "." is added."""
    return {
        "model": "smollm2",
        "drafting": "packaged:smollm2",
        "prompt": [1, 2],
        "text": "The cat sat.",
        "finish_reason": "stop",
        "acceleration_rate": 3.0,
        "steps": [
            {
                "tokens": [11],
                "texts": ["The"],
                "sources": [0],
                "rows": 2,
                "milliseconds": 1.0,
                "tree": None,
                "path": [],
            },
            {
                "tokens": [21, 31, 41],
                "texts": [" cat", " sat", "."],
                "sources": [1, 2, 0],
                "rows": 5,
                "milliseconds": 1.5,
                "tree": {
                    "tokens": [11, 21, 22, 31, 32],
                    "texts": ["The", " cat", " dog", " sat", " ran"],
                    "parents": [-1, 0, 0, 1, 1],
                    "probabilities": [1.0, 0.6, 0.3, 0.3, 0.24],
                    "sources": [0, 1, 1, 2, 2],
                },
                "path": [0, 1, 3],
            },
        ],
    }


ALL = {
    "against": against,
    "bench": bench,
    "drafters": drafters,
    "profile": profile,
    "heads": head_counts,
    "trees": tree_sizes,
    "tuning": tuning,
    "training": training,
    "decode": decode,
}


def written(folder: Path, name: str, content: Json) -> Path:
    """The result as a file."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
