"""llama.cpp in a process of its own, for an interpreter that has llama-cpp-python and NumPy and nothing else.

    python llama_worker.py '{"path": "model.gguf", "threads": 2, "context": 512, "repack": true}'
    python llama_worker.py '{"requantise": "Q8_0", "path": "model.gguf", "target": "new.gguf", "threads": 2}'

Prints a JSON object when the model is loaded, then one for each that it reads from stdin, line by line:
`{"write": ids, "tokens": 128, "lookup": 0}` (greedy, the text's end ignored) and `{"read": ids}`
(log-likelihood). Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from importlib import import_module
from typing import Any

PIECE = 128


class Model:
    """A loaded model and its context."""

    def __init__(self, asked: dict[str, Any]) -> None:
        llama_cpp = import_module("llama_cpp")
        self._llama_cpp, self._numpy = llama_cpp, import_module("numpy")
        _set_repacking(llama_cpp.llama_cpp, asked["repack"])
        threads = {"n_threads": asked["threads"], "n_threads_batch": asked["threads"]}
        self._model = llama_cpp.Llama(asked["path"], n_ctx=asked["context"], verbose=False, **threads)
        self._vocabulary = self._model.n_vocab()
        self.version = llama_cpp.__version__

    def write(self, ids: list[int], count: int, looked_up: int) -> dict[str, Any]:
        """`count` tokens after `ids`. looked_up: tokens per guess of llama-cpp-python's prompt lookup."""
        self._model.reset()
        started = time.perf_counter()
        self._model.eval(ids)
        written = [int(self._logits(1)[0].argmax())]
        first, steps = time.perf_counter(), 0
        while len(written) < count:
            guesses = self._guesses([*ids, *written], looked_up)[: count - len(written) - 1]
            written += self._step([written[-1], *guesses])
            steps += 1
        ended = time.perf_counter()
        times = {"prefill_seconds": first - started, "seconds": ended - first}
        return {"tokens": written, "count": len(written) - 1, "steps": steps, **times}

    def read(self, ids: list[int]) -> dict[str, Any]:
        """Log-likelihood of the tokens after the first, in nats."""
        self._model.reset()
        total = 0.0
        for start in range(0, len(ids) - 1, PIECE):
            piece = ids[start : min(start + PIECE, len(ids) - 1)]
            rows = self._rows(piece).astype(self._numpy.float64)
            following = ids[start + 1 : start + 1 + len(piece)]
            highest = rows.max(1, keepdims=True)
            sums = self._numpy.log(self._numpy.exp(rows - highest).sum(1)) + highest[:, 0]
            total += float((rows[self._numpy.arange(len(piece)), following] - sums).sum())
        return {"log_likelihood": total}

    def _guesses(self, tokens: list[int], looked_up: int) -> list[int]:
        if not looked_up:
            return []
        drafter = import_module("llama_cpp.llama_speculative").LlamaPromptLookupDecoding
        given = self._numpy.array(tokens, self._numpy.intc)
        return [int(token) for token in drafter(num_pred_tokens=looked_up)(given)]

    def _step(self, tokens: list[int]) -> list[int]:
        """What the model says after the first token, and after the guesses that it agrees with."""
        said = [int(token) for token in self._rows(tokens).argmax(1)]
        right = 0
        while right + 1 < len(tokens) and tokens[right + 1] == said[right]:
            right += 1
        # `Llama.eval` drops what the cache holds beyond this; so does `_rows`.
        self._model.n_tokens -= len(tokens) - 1 - right
        return said[: right + 1]

    def _rows(self, tokens: list[int]) -> Any:
        """(tokens, vocabulary) logits, without llama-cpp-python's copy and sampler, which would cost
        llama.cpp time that is not its own.
        """
        model = self._model
        if len(tokens) == 1:
            model.eval(tokens)
            return self._logits(1)
        model._ctx.kv_cache_seq_rm(-1, model.n_tokens, -1)
        model._batch.set_batch(batch=tokens, n_past=model.n_tokens, logits_all=True)
        model._ctx.decode(model._batch)
        model.n_tokens += len(tokens)
        return self._logits(len(tokens))

    def _logits(self, rows: int) -> Any:
        found = self._llama_cpp.llama_get_logits(self._model._ctx.ctx)
        return self._numpy.ctypeslib.as_array(found, (rows, self._vocabulary))


def requantise(asked: dict[str, Any]) -> None:
    """Write another quantisation of a file's weights; raises OSError where llama.cpp cannot."""
    llama_cpp = import_module("llama_cpp")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.allow_requantize = True
    settings.nthread = asked["threads"]
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{asked['requantise']}")
    paths = (asked["path"].encode(), asked["target"].encode())
    if llama_cpp.llama_model_quantize(*paths, ctypes.byref(settings)):
        raise OSError("llama.cpp could not requantise the file")


def _set_repacking(library: Any, wanted: bool) -> None:
    """llama.cpp's --no-repack, for which `Llama` has no argument."""
    defaults = library.llama_model_default_params

    def parameters() -> Any:
        chosen = defaults()
        if hasattr(chosen, "use_extra_bufts"):
            chosen.use_extra_bufts = wanted
        return chosen

    library.llama_model_default_params = parameters


def main() -> None:
    """Load, then answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    asked = json.loads(sys.argv[1])
    if "requantise" in asked:
        requantise(asked)
        return say({"done": True})
    model = Model(asked)
    say({"version": model.version})
    for line in sys.stdin:
        one = json.loads(line)
        say(
            model.read(one["read"])
            if "read" in one
            else model.write(one["write"], one["tokens"], one["lookup"])
        )


if __name__ == "__main__":
    main()
