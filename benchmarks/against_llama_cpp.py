"""Plain decoding, decoding with heads and llama.cpp, prompt by prompt in one run, on the same GGUF file.

    python benchmarks/against_llama_cpp.py MODEL --suite FILE.jsonl [--limit 8] [--tokens 128] [--json OUT]

llama.cpp runs in the interpreter named by --llama-python, where llama-cpp-python is installed (by default
this one). Each side decodes greedily, alone on the machine, the same number of tokens after the same prompt,
with as many threads; the prompt is timed apart. With --requantised FILE.gguf a second llama.cpp runs another
quantisation of the same weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

WORKER = """
import json, sys, time
import llama_cpp, numpy
path, threads, extra_buffers = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
defaults = llama_cpp.llama_cpp.llama_model_default_params
def parameters():
    chosen = defaults()
    chosen.use_extra_bufts = extra_buffers
    return chosen
llama_cpp.llama_cpp.llama_model_default_params = parameters
count = dict(n_threads=threads, n_threads_batch=threads)
model = llama_cpp.Llama(path, n_ctx=2048, n_batch=512, verbose=False, **count)
context = model._ctx.ctx
def best():
    # The logits as they are, without the Python sampler, which would cost llama.cpp time that is not its own.
    return int(numpy.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (model.n_vocab(),)).argmax())
print("ready", flush=True)
for line in sys.stdin:
    ids, count = json.loads(line)
    model.reset()
    started = time.perf_counter()
    model.eval(ids)
    first = time.perf_counter()
    written = []
    while len(written) < count:
        token = best()
        written.append(token)
        model.eval([token])
    ended = time.perf_counter()
    print(json.dumps({"prefill": first - started, "decode": ended - first, "tokens": written}), flush=True)
"""


Side = Callable[[list[int], int], dict[str, Any]]
"""Decodes so many tokens after a prompt."""


class LlamaCpp:
    """llama.cpp in a process of its own, so that its threads and ours do not meet."""

    def __init__(self, python: str, path: str, threads: int, extra_buffers: bool) -> None:
        self._process = subprocess.Popen(
            [python, "-c", WORKER, path, str(threads), str(extra_buffers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit(f"llama.cpp did not start: {python} -m pip install llama-cpp-python")

    def run(self, ids: list[int], count: int) -> dict[str, Any]:
        """Decode `count` tokens after `ids`: seconds of prefill and decoding."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([ids, count]), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def ours(medusa: Any, ids: list[int], count: int, speculative: bool) -> dict[str, Any]:
    """Decode `count` tokens after `ids` with this project."""
    result = medusa.generate(ids, max_tokens=count + 1, ignore_eos=True, speculative=speculative)
    counted = result.statistics
    return {
        "prefill": counted.prefill_seconds,
        "decode": counted.decode_seconds,
        "tokens": result.tokens[1:],
        "steps": counted.steps,
    }


def prefill_rates(
    medusa: Any, peers: dict[str, LlamaCpp], ids: list[int], rounds: int = 5
) -> dict[str, float]:
    """Tokens per second of a prompt of 512 tokens, medians of interleaved rounds."""
    times: dict[str, list[float]] = {"medusa": [], **{name: [] for name in peers}}
    for _ in range(rounds):
        started = time.perf_counter()
        ours(medusa, ids, 1, False)
        times["medusa"].append(time.perf_counter() - started)
        for name, peer in peers.items():
            times[name].append(peer.run(ids, 0)["prefill"])
    return {name: len(ids) / statistics.median(each) for name, each in times.items()}


def peers_of(chosen: argparse.Namespace) -> dict[str, LlamaCpp]:
    """llama.cpp on the model's own file, and on other quantisations of it."""
    from medusa_decoding.models import resolve

    files = {"llama.cpp": str(resolve(chosen.model).path)}
    files |= {f"llama.cpp {other.rsplit('.', 2)[-2]}": other for other in chosen.requantised}
    return {
        name: LlamaCpp(chosen.llama_python, path, chosen.threads, chosen.extra_buffers)
        for name, path in files.items()
    }


def sides_of(medusa: Any, peers: dict[str, LlamaCpp]) -> dict[str, Side]:
    """What is compared: this project plainly, with heads, with heads and lookup; the peers."""
    sides: dict[str, Side] = {"plain": lambda ids, n: ours(medusa, ids, n, False)}
    if medusa.heads is not None:
        # A planner of its own for each: what one learns of a text is not the other's.
        alone = replace(medusa, lookup=None, planner=deepcopy(medusa.planner))
        sides["heads"] = lambda ids, n: ours(alone, ids, n, True)
        sides["heads and lookup"] = lambda ids, n: ours(medusa, ids, n, True)
    return sides | {name: peer.run for name, peer in peers.items()}


class Race:
    """Prompt by prompt on all sides, each prompt beginning with another side."""

    def __init__(self, sides: dict[str, Side], tokens: int) -> None:
        self._sides, self._tokens = sides, tokens
        self._rates: dict[str, list[float]] = {name: [] for name in sides}
        self._guessing = [name for name in sides if "heads" in name]
        self._same, self._steps = dict.fromkeys(self._guessing, 0), dict.fromkeys(self._guessing, 0)

    def run(self, prompts: list[list[int]]) -> None:
        """All prompts, after a short one to warm up."""
        names = list(self._sides)
        for side in self._sides.values():
            side(prompts[0], 8)
        for number, ids in enumerate(prompts):
            first = number % len(names)
            found = {name: self._sides[name](ids, self._tokens) for name in names[first:] + names[:first]}
            for name, result in found.items():
                self._rates[name].append(self._tokens / result["decode"])
            for name in self._guessing:
                self._same[name] += found[name]["tokens"] == found["plain"]["tokens"]
                self._steps[name] += found[name]["steps"]
            shown = {name: round(rates[-1], 1) for name, rates in self._rates.items()}
            print(f"{number + 1}/{len(prompts)}", shown, file=sys.stderr)

    def report(self) -> dict[str, Any]:
        """Medians over prompts."""
        count = len(self._rates["plain"])
        report: dict[str, Any] = {
            "tokens_per_second": {name: statistics.median(rates) for name, rates in self._rates.items()},
            "times_llama_cpp": {name: self._times(name, "llama.cpp") for name in self._rates},
        }
        for name in self._guessing:
            report[name] = {
                "tokens_per_step": count * self._tokens / self._steps[name],
                "times_plain": self._times(name, "plain"),
                "identical": self._same[name],
                "of": count,
            }
        return report

    def _times(self, name: str, other: str) -> float:
        pairs = zip(self._rates[name], self._rates[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tree", default="auto")
    parser.add_argument("--llama-python", default=sys.executable)
    parser.add_argument("--requantised", action="append", default=[])
    parser.add_argument(
        "--no-extra-buffers",
        dest="extra_buffers",
        action="store_false",
        help="llama.cpp without its repacked weights: where its AMX code crashes",
    )
    parser.add_argument("--json")
    return parser.parse_args()


def main() -> None:
    """Run, print, write the JSON."""
    chosen = arguments()
    import medusa_decoding
    from medusa_decoding.bench.machine import describe_machine
    from medusa_decoding.bench.suite import load_suite, round_robin

    medusa = medusa_decoding.load(
        chosen.model, engine="cpu", heads=chosen.heads, threads=chosen.threads, tree=chosen.tree
    )
    peers = peers_of(chosen)
    questions = round_robin(load_suite(Path(chosen.suite)), chosen.limit)
    prompts = [medusa.encode(question.turns[0])[:900] for question in questions]
    race = Race(sides_of(medusa, peers), chosen.tokens)
    race.run(prompts)
    settings = ("limit", "tokens", "threads", "tree", "extra_buffers")
    report = {
        "machine": describe_machine(),
        "model": chosen.model,
        "engine": medusa.engine.description,
        "settings": {name: getattr(chosen, name) for name in settings},
        **race.report(),
        "prefill_512_tokens_per_second": prefill_rates(medusa, peers, (prompts[0] * 512)[:512]),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if chosen.json:
        Path(chosen.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
