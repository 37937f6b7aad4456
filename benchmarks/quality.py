"""What the CPU engine's weights and caches do to a model: divergence from transformers in float32, on a text.

    python benchmarks/quality.py MODEL [--text FILE ...] [--tokens 2048] [--json OUT]

The text (by default this repository's license and documentation, a few thousand tokens) is read in pieces by
both, token by token as a text of its own. Perplexity, mean Kullback-Leibler divergence per token in nats, and
how often the likeliest token is the same where the best two of transformers lie more than 1e-3 apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [ROOT / "LICENSE", *sorted((ROOT / "docs").glob("*.md"))]
PIECE = 128
KINDS = {
    "int8": {"weights": "int8"},
    "int8, kv fp16": {"weights": "int8", "kv_cache": "fp16"},
    "fp32": {"weights": "fp32"},
}


class Reader:
    """An engine that reads one text."""

    def __init__(self, engine: Any) -> None:
        self._engine, self._handle, self._length = engine, engine.open(), 0

    def read(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """(tokens, vocabulary) log-probabilities after each."""
        from medusa_decoding.decoding.protocols import as_rows

        places = np.arange(len(tokens))
        wanted = np.ones(len(tokens), np.bool_)
        rows = as_rows(self._handle, tokens, self._length, places - 1, places, wanted)
        verified = self._engine.forward(rows)
        logits = np.stack([verified.logits(row) for row in places])
        self._engine.commit(places)
        self._length += len(tokens)
        logits -= logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))


class Tally:
    """Sums over tokens."""

    def __init__(self) -> None:
        self.tokens = self.judged = self.same = 0
        self.loss = self.divergence = 0.0

    def add(
        self, expected: NDArray[np.float64], found: NDArray[np.float64], following: NDArray[np.int64]
    ) -> None:
        """Count one piece; `following`: the text's own next tokens."""
        self.tokens += len(following)
        self.loss -= float(found[np.arange(len(following)), following].sum())
        self.divergence += float((np.exp(expected) * (expected - found)).sum())
        best = np.partition(expected, -2, axis=1)[:, -2:]
        clear = best[:, 1] - best[:, 0] > 1e-3
        self.judged += int(clear.sum())
        self.same += int((expected.argmax(1) == found.argmax(1))[clear].sum())

    def report(self) -> dict[str, float]:
        """Means."""
        return {
            "perplexity": float(np.exp(self.loss / self.tokens)),
            "divergence": self.divergence / self.tokens,
            "same_likeliest_token": self.same / self.judged,
        }


def main() -> None:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, action="append")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()

    import medusa_decoding
    from medusa_decoding.bench.machine import describe_machine

    exact = medusa_decoding.load(chosen.model, heads=None, engine="torch", dtype="float32", draft="none")
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in chosen.text or TEXTS)
    tokens = np.array(exact.tokenizer.encode(text)[: chosen.tokens + 1], np.int64)
    readers = {
        name: Reader(
            medusa_decoding.load(chosen.model, heads=None, engine="cpu", draft="none", **kind).engine
        )
        for name, kind in KINDS.items()
    }
    reference = Reader(exact.engine)
    tallies = {name: Tally() for name in ("transformers fp32", *KINDS)}
    for start in range(0, len(tokens) - 1, PIECE):
        piece = tokens[start : min(start + PIECE, len(tokens) - 1)]
        following = tokens[start + 1 : start + 1 + len(piece)]
        expected = reference.read(piece)
        tallies["transformers fp32"].add(expected, expected, following)
        for name, reader in readers.items():
            tallies[name].add(expected, reader.read(piece), following)
    report = {
        "machine": describe_machine(),
        "model": chosen.model,
        "tokens": len(tokens) - 1,
        "weights": {name: tally.report() for name, tally in tallies.items()},
    }
    print(json.dumps(report["weights"], indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
