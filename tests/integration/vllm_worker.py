"""Decode prompts with vLLM, which lives in an environment of its own: JSON in, JSON out.

    python vllm_worker.py REQUEST RESULT

REQUEST holds `model` (a folder), `prompts` (texts of a user), `max_tokens` and `speculative` (vLLM's
speculative config, or null). RESULT gets, per prompt, the ids of prompt and answer, the seconds of processor
time that it took and vLLM's own counts of drafts and of accepted tokens per position. Nothing of this project
is imported. One thread: its processor time is what the work costs, whoever else uses the machine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}

from vllm import LLM, SamplingParams  # it reads the settings above when it is imported

PACKAGES = ("vllm-cpu", "torch", "transformers")


def load(request: dict[str, Any]) -> LLM:
    """The model, one sequence at a time, so that vLLM's counters between two prompts are one prompt's."""
    return LLM(
        model=request["model"],
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=1,
        seed=0,
        disable_log_stats=False,
        speculative_config=request["speculative"],
    )


def counters(llm: LLM) -> dict[str, Any]:
    """vLLM's own, over everything decoded so far."""
    found = {metric.name: metric for metric in llm.get_metrics() if "spec_decode" in metric.name}
    if not found:
        return {"drafts": 0, "accepted": []}
    return {
        "drafts": found["vllm:spec_decode_num_drafts"].value,
        "accepted": list(found["vllm:spec_decode_num_accepted_tokens_per_pos"].values),
    }


def decode(llm: LLM, prompt: str, request: dict[str, Any]) -> dict[str, Any]:
    """One prompt, greedily, in the model's own chat template."""
    sampling = SamplingParams(temperature=0.0, max_tokens=request["max_tokens"])
    before, started = counters(llm), time.process_time()
    (output,) = llm.chat([{"role": "user", "content": prompt}], sampling, use_tqdm=False)
    seconds, after = time.process_time() - started, counters(llm)
    earlier = before["accepted"] or [0] * len(after["accepted"])
    return {
        "prompt_ids": list(output.prompt_token_ids),
        "tokens": list(output.outputs[0].token_ids),
        "seconds": seconds,
        "drafts": after["drafts"] - before["drafts"],
        "accepted": [now - then for now, then in zip(after["accepted"], earlier, strict=True)],
    }


def main() -> None:
    """Read the request, decode, write the result."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    llm = load(request)
    decode(llm, "Hello", request | {"max_tokens": 8})
    result = {
        "versions": {name: version(name) for name in PACKAGES},
        "answers": [decode(llm, prompt, request) for prompt in request["prompts"]],
    }
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
