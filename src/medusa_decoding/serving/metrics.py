"""Metrics in Prometheus form, by the names that people chart elsewhere, under the prefix `medusa:`."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from medusa_decoding.serving.observer import Ending, Progress

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKEN = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Metrics:
    """Counts what an `Observer` is told; several apps in one process count apart."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._running = self._gauge("num_requests_running", "Texts being written.")
        self._waiting = self._gauge("num_requests_waiting", "Texts that wait for their turn.")
        self._prompt_tokens = self._counter(
            "prompt_tokens", "Tokens of prompts, those found in the cache too."
        )
        self._reused = self._counter("prefix_cache_hits", "Tokens of prompts that were found in the cache.")
        self._written = self._counter("generation_tokens", "Tokens written.")
        self._drafts = self._counter("spec_decode_num_drafts", "Draft trees verified.")
        self._guesses = self._counter("spec_decode_num_draft_tokens", "Guesses verified.")
        self._accepted = self._counter("spec_decode_num_accepted_tokens", "Guesses that became text.")
        self._positions = self._counter(
            "spec_decode_num_accepted_tokens_per_pos",
            "Guesses that became text, by their depth in the tree, from 0.",
            "position",
        )
        self._ended = self._counter("request_success", "Texts by how they ended.", "finished_reason")
        self._observe_times()

    def _observe_times(self) -> None:
        self._queue_time = self._histogram(
            "request_queue_time_seconds", "From the request to its turn.", _FIRST_TOKEN
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to its first token.", _FIRST_TOKEN
        )
        self._per_token = self._histogram(
            "time_per_output_token_seconds", "Between tokens; those of one step share its time.", _TOKEN
        )
        self._step_time = self._histogram("step_seconds", "One forward pass and what belongs to it.", _TOKEN)
        self._rows = self._histogram(
            "step_rows", "Rows of a forward pass, pieces of prompts included.", _ROWS
        )
        self._tree = self._histogram(
            "tree_size", "Rows of one text's tree in one step, its root included.", _ROWS
        )

    def queued(self) -> None:
        """See `Observer`."""
        self._waiting.inc()

    def started(self, prompt_tokens: int, reused: int, seconds: float) -> None:
        """See `Observer`."""
        self._waiting.dec()
        self._running.inc()
        self._prompt_tokens.inc(prompt_tokens)
        self._reused.inc(reused)
        self._queue_time.observe(seconds)

    def first_token(self, seconds: float) -> None:
        """See `Observer`."""
        self._written.inc()
        self._first_token.observe(seconds)

    def stepped(self, rows: int, seconds: float, texts: Sequence[Progress]) -> None:
        """See `Observer`."""
        self._rows.observe(rows)
        self._step_time.observe(seconds)
        for text in texts:
            self._written.inc(text.tokens)
            self._tree.observe(text.guesses + 1)
            for _ in range(text.tokens):
                self._per_token.observe(text.seconds / text.tokens)
            if text.guesses:
                self._count_draft(text)

    def ended(self, ending: Ending, *, started: bool) -> None:
        """See `Observer`."""
        (self._running if started else self._waiting).dec()
        self._ended.labels(ending).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text form."""
        return generate_latest(self._registry)

    def _count_draft(self, text: Progress) -> None:
        self._drafts.inc()
        self._guesses.inc(text.guesses)
        self._accepted.inc(text.accepted)
        for position in range(text.accepted):
            self._positions.labels(position).inc()

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"medusa:{name}", meaning, registry=self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"medusa:{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"medusa:{name}", meaning, buckets=buckets, registry=self._registry)
