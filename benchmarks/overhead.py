"""What is not the engine: the share of Python and NumPy in a step, and the time to a first token.

    python benchmarks/overhead.py MODEL [--tokens 200] [--starts 5] [--json OUT]

Share: of the time of a decode, all but the engine's passes and the heads' native call, with guesses and
plainly. First token: of a new process that loads the model and answers with one token, from its start to its
end, and which of the heavy libraries it imported. The first start packs weights where nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT = "Explain how a bicycle stays upright, and why it is harder at low speed."
START = """
import sys
import medusa_decoding
model = medusa_decoding.load(sys.argv[1], progress=False)
conversation = model.conversation()
next(iter(conversation.stream("Hello, who are you?", max_tokens=1)))
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


class Clock:
    """Seconds spent in some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


class Timed:
    """A native object some of whose methods are timed."""

    def __init__(self, inner: Any, clock: Clock, methods: tuple[str, ...]) -> None:
        self._inner = inner
        for name in methods:
            setattr(self, name, clock.around(getattr(inner, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def shares(model: str, tokens: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step, and the share of it that is Python's."""
    import medusa_decoding

    medusa = medusa_decoding.load(model, engine="cpu", progress=False)
    engine: Any = medusa.engine
    clock = Clock()
    engine.model = Timed(engine.model, clock, ("forward", "commit", "argmax"))
    if medusa.heads is not None:
        heads: Any = medusa.heads
        heads._heads = Timed(heads._heads, clock, ("propose",))
    found = {}
    for name, speculative in (("warm-up", True), ("with guesses", True), ("plain", False)):
        clock.seconds = 0.0
        written = medusa.generate(PROMPT, max_tokens=tokens, ignore_eos=True, speculative=speculative)
        counted = written.statistics
        total = counted.decode_seconds
        native = clock.seconds - counted.prefill_seconds
        found[name] = {"step_ms": 1000 * total / counted.steps, "python_share": 1 - native / total}
    del found["warm-up"]
    return found


def starts(model: str, count: int) -> dict[str, Any]:
    """Seconds of processes that answer with one token, and what they imported."""
    seconds, imported = [], ""
    for _ in range(count):
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", START, model], capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - started)
        imported = ended.stdout.strip()
    return {"first": seconds[0], "median": statistics.median(seconds[1:] or seconds), "imported": imported}


def main() -> None:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    report: dict[str, Any] = {
        "model": chosen.model,
        "steps": shares(chosen.model, chosen.tokens),
        "seconds_to_first_token": starts(chosen.model, chosen.starts),
    }
    from medusa_decoding.bench.machine import describe_machine

    report["machine"] = describe_machine()
    text = json.dumps(report, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
