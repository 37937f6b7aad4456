"""Many clients on one scheduler: does every answer equal the same request alone, and is all given back?

    python benchmarks/serving_load.py MODEL [--clients 32] [--seconds 60] [--disconnects 0.3] [--json OUT]
    python benchmarks/serving_load.py MODEL --url http://127.0.0.1:8000 [--api-key KEY]

Each client streams one answer after the other, to prompts and settings drawn at random (system prompts
shared, chats that go on, greedy and sampled, long and short), and hangs up in the middle of some.
Afterwards requests whose answers came to their end are run alone, plainly, in this process, and the
texts are compared; the scheduler's counts must be at zero, its sequences closed, and the memory of the
process (with --url that of --pid, if given) within 5 % of what it was after --warm-up seconds, in which
the beginnings that are kept for later prompts fill their place. Exits with 1 where one of these fails.

With --url the clients speak HTTP to a server of the same model (`medusa serve`), and MODEL is loaded here for
the comparison alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import medusa_decoding
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.generation import GenerationOptions, Medusa
from medusa_decoding.serving.jobs import Emitted, Finished, Job, QueueFull
from medusa_decoding.serving.scheduler import Scheduler
from medusa_decoding.serving.settings import SchedulerSettings

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a terse assistant who answers in one sentence and never repeats the question.",
)
QUESTIONS = (
    "Name three rivers.",
    "Write a Python function that reverses a list.",
    "Why is the sky blue?",
    "Repeat this sentence three times: the quick brown fox jumps over the lazy dog.",
    "Summarise in one line: " + "The meeting about the garden was moved from Monday to Thursday. " * 12,
)
TOLERANCE = 0.05
"""By how much the memory may have grown after the warm-up."""


@dataclass(frozen=True)
class Asked:
    """One request. speculative: as the API's extension."""

    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float
    seed: int
    speculative: str | int


@dataclass
class Tally:
    """What the clients saw."""

    answers: list[tuple[Asked, str]] = field(default_factory=list)
    tokens: int = 0
    hung_up: int = 0
    sent_away: int = 0


def asked(chance: random.Random, before: tuple[Asked, str] | None) -> Asked:
    """A request drawn at random; a third of them go on with the client's last chat."""
    question = {"role": "user", "content": chance.choice(QUESTIONS)}
    if before is not None and len(before[0].messages) < 6 and chance.random() < 0.33:
        messages = [*before[0].messages, {"role": "assistant", "content": before[1]}, question]
    else:
        messages = [{"role": "system", "content": chance.choice(SYSTEMS)}, question]
    return Asked(
        messages,
        chance.choice([8, 24, 64]),
        chance.choice([0.0, 0.0, 0.8, 1.0]),
        chance.randrange(2**32),
        chance.choice(["auto", "auto", "off", 4]),
    )


class InProcess:
    """Requests as jobs of a scheduler."""

    def __init__(self, medusa: Medusa, scheduler: Scheduler) -> None:
        self._medusa = medusa
        self._scheduler = scheduler

    async def stream(self, one: Asked) -> AsyncIterator[str]:
        """The answer's text, piece by piece; leaving early cancels it. Raises QueueFull."""
        options = GenerationOptions(max_tokens=one.max_tokens, temperature=one.temperature, seed=one.seed)
        prompt = self._medusa.tokenizer.chat(list(one.messages))
        speculation: Any = one.speculative
        [ticket] = self._scheduler.submit([Job(prompt, options, speculation=speculation)])
        try:
            async for event in ticket:
                if isinstance(event, Emitted | Finished):
                    yield event.text
        finally:
            ticket.cancel()


class OverHttp:
    """Requests to a server."""

    def __init__(self, url: str, key: str | None, clients: int) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=2 * clients)
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits)

    async def stream(self, one: Asked) -> AsyncIterator[str]:
        """The answer's text, piece by piece; leaving early hangs up. Raises QueueFull."""
        body = {**asdict(one), "stream": True}
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code == 429:
                raise QueueFull(int(response.headers.get("Retry-After", "1")))
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise RuntimeError(chunk["error"])
                    for choice in chunk.get("choices", []):
                        yield choice["delta"].get("content") or ""

    async def metrics(self) -> dict[str, float]:
        """The server's gauges."""
        lines = (await self._client.get("/metrics")).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


async def client(way: InProcess | OverHttp, number: int, until: float, hangs: float, tally: Tally) -> None:
    """Ask until the time is over; `hangs` is the share of answers that are not waited for."""
    chance, last = random.Random(number), None
    while time.monotonic() < until:
        one = asked(chance, last)
        patience = chance.randrange(1, 12) if chance.random() < hangs else 10**9
        try:
            text = await _read(way, one, patience, tally)
        except QueueFull:
            tally.sent_away += 1
            await asyncio.sleep(0.2)
            continue
        if text is None:
            tally.hung_up += 1
        else:
            last = (one, text)
            tally.answers.append(last)


async def _read(way: InProcess | OverHttp, one: Asked, patience: int, tally: Tally) -> str | None:
    """The whole answer, or None if patience ended before it."""
    parts: list[str] = []
    stream = way.stream(one)
    try:
        async for part in stream:
            parts.append(part)
            tally.tokens += bool(part)
            if len(parts) > patience:
                return None
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return "".join(parts)


def resident(pid: int | str) -> int:
    """Bytes of memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


async def load(way: InProcess | OverHttp, arguments: argparse.Namespace, tally: Tally) -> list[int]:
    """All clients for the whole time; the process's memory after the warm-up and each quarter of the rest."""
    began = time.monotonic() + arguments.warm_up
    pid = arguments.pid or "self"
    running = [
        asyncio.ensure_future(client(way, number, began + arguments.seconds, arguments.disconnects, tally))
        for number in range(arguments.clients)
    ]
    memory = []
    for quarter in range(5):
        await asyncio.sleep(max(0.0, began + quarter * arguments.seconds / 4 - time.monotonic()))
        memory.append(resident(pid))
    await asyncio.gather(*running)
    memory.append(resident(pid))
    return memory


def different(medusa: Medusa, answers: Sequence[tuple[Asked, str]], most: int) -> tuple[int, int]:
    """How many answers were run again, alone and plainly, and how many of them were not the same."""
    chosen = answers if len(answers) <= most else random.Random(0).sample(answers, most)
    unequal = 0
    for one, text in chosen:
        options = GenerationOptions(max_tokens=one.max_tokens, temperature=one.temperature, seed=one.seed)
        prompt = medusa.tokenizer.chat(list(one.messages))
        stream = medusa.write(Text(prompt), options, speculative=False)
        for _ in stream:
            pass
        unequal += stream.result.text != text
    return len(chosen), unequal


class Gauges:
    """Counts of an observer: what must be at zero in the end."""

    def __init__(self) -> None:
        self.waiting = self.running = self.passes = self.rows = self.tokens = 0

    def queued(self) -> None:
        """See `Observer`."""
        self.waiting += 1

    def started(self, prompt_tokens: int, reused: int, seconds: float) -> None:
        """See `Observer`."""
        self.waiting -= 1
        self.running += 1

    def first_token(self, seconds: float) -> None:
        """See `Observer`."""
        self.tokens += 1

    def stepped(self, rows: int, seconds: float, texts: Sequence[Any]) -> None:
        """See `Observer`."""
        self.passes += 1
        self.rows += rows
        self.tokens += sum(text.tokens for text in texts)

    def ended(self, ending: str, *, started: bool) -> None:
        """See `Observer`."""
        if started:
            self.running -= 1
        else:
            self.waiting -= 1


def run_in_process(
    medusa: Medusa, arguments: argparse.Namespace
) -> tuple[Tally, list[int], dict[str, float]]:
    """The load on a scheduler of this process."""
    tally, gauges = Tally(), Gauges()

    async def main() -> list[int]:
        settings = SchedulerSettings(max_sequences=arguments.max_sequences, max_queue=arguments.clients)
        with Scheduler(medusa, settings, gauges) as scheduler:
            memory = await load(InProcess(medusa, scheduler), arguments, tally)
            await scheduler.drain()
        return memory

    memory = asyncio.run(main())
    left = {"waiting": gauges.waiting, "running": gauges.running}
    if hasattr(medusa.engine, "model") and hasattr(medusa.engine.model, "cache_bytes"):
        left["bytes of keys and values"] = medusa.engine.model.cache_bytes()
    return tally, memory, left


def run_over_http(arguments: argparse.Namespace) -> tuple[Tally, list[int], dict[str, float]]:
    """The load on a server."""
    tally = Tally()

    async def main() -> tuple[list[int], dict[str, float]]:
        way = OverHttp(arguments.url, arguments.api_key, arguments.clients)
        memory = await load(way, arguments, tally)
        await asyncio.sleep(1)
        found = await way.metrics()
        names = ("medusa:num_requests_waiting", "medusa:num_requests_running")
        return memory, {name: found[name] for name in names}

    memory, left = asyncio.run(main())
    return tally, memory, left


def main() -> int:
    """Run the load and print what came of it; 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--url", help="a server of this model; without it a scheduler in this process")
    parser.add_argument("--api-key")
    parser.add_argument("--pid", type=int, help="of the server, if it runs on this machine")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=30, help="seconds before memory is looked at")
    parser.add_argument("--disconnects", type=float, default=0.3, help="share of answers that are left early")
    parser.add_argument("--max-sequences", type=int, default=32)
    parser.add_argument("--check", type=int, default=200, help="the most answers that are run again alone")
    parser.add_argument("--tree", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    medusa = medusa_decoding.load(arguments.model, tree=arguments.tree)
    if arguments.url:
        tally, memory, left = run_over_http(arguments)
    else:
        tally, memory, left = run_in_process(medusa, arguments)
    checked, unequal = different(medusa, tally.answers, arguments.check)
    grown = max(memory[1:]) / memory[0] - 1
    found = {
        "clients": arguments.clients,
        "warm-up seconds": arguments.warm_up,
        "seconds": arguments.seconds,
        "answers": len(tally.answers),
        "hung up": tally.hung_up,
        "sent away": tally.sent_away,
        "pieces of text per second": round(tally.tokens / (arguments.warm_up + arguments.seconds), 1),
        "checked": checked,
        "unequal": unequal,
        "left at the end": left,
        "memory, MB": [round(size / 1e6, 1) for size in memory],
        "memory grown by": round(grown, 4),
    }
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    measured = bool(arguments.pid) or not arguments.url
    return int(bool(unequal or any(left.values()) or not tally.answers or (measured and grown > TOLERANCE)))


if __name__ == "__main__":
    sys.exit(main())
