"""A stand-in for llama-cpp-python, for the part of it that the worker uses.

Its model is a rule over all tokens in the cache, so a token that should have been forgotten changes the text.
FAKE_LLAMA says what goes wrong: "crashes repacked", "dies", "hangs", "cannot requantise".
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import llama_cpp
from .llama_cpp import RULE_VOCABULARY, rule

__version__ = "9.8.7"
FAULT = os.environ.get("FAKE_LLAMA", "")
LLAMA_FTYPE_MOSTLY_Q8_0, LLAMA_FTYPE_MOSTLY_Q4_0 = 7, 2
_logits = np.zeros((0, RULE_VOCABULARY), np.float32)


class _Parameters(ctypes.Structure):
    _fields_ = [("allow_requantize", ctypes.c_bool), ("nthread", ctypes.c_int), ("ftype", ctypes.c_int)]


def llama_model_quantize_default_params() -> _Parameters:
    return _Parameters()


def llama_model_quantize(source: bytes, target: bytes, settings: Any) -> int:
    chosen = settings._obj
    if FAULT == "cannot requantise" or not chosen.allow_requantize:
        return 1
    Path(target.decode()).write_text(f"{chosen.ftype} of {Path(source.decode()).name}")
    return 0


def llama_get_logits(context: Any) -> Any:
    return _logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


class _Batch:
    def set_batch(self, batch: list[int], n_past: int, logits_all: bool) -> None:
        assert logits_all
        self.tokens, self.first = list(batch), n_past


class _Context:
    def __init__(self) -> None:
        self.ctx, self.cache = self, list[int]()

    def kv_cache_seq_rm(self, sequence: int, first: int, last: int) -> None:
        assert (sequence, last) == (-1, -1)
        del self.cache[first:]

    def decode(self, batch: _Batch) -> None:
        global _logits
        assert batch.first == len(self.cache)
        rows = []
        for token in batch.tokens:
            self.cache.append(token)
            rows.append(rule(self.cache))
        _logits = np.array(rows, np.float32)


class Llama:
    def __init__(self, path: str, *, n_ctx: int, verbose: bool, n_threads: int, n_threads_batch: int) -> None:
        assert Path(path).exists() and n_threads == n_threads_batch >= 1 and not verbose
        print("libraries print what they like")
        self.repacked = llama_cpp.llama_model_default_params().use_extra_bufts
        self.n_tokens, self._context = 0, n_ctx
        self._ctx, self._batch = _Context(), _Batch()

    def n_vocab(self) -> int:
        return RULE_VOCABULARY

    def reset(self) -> None:
        self.n_tokens = 0

    def eval(self, tokens: list[int]) -> None:
        global _logits
        if FAULT == "crashes repacked" and self.repacked:
            os.kill(os.getpid(), signal.SIGSEGV)
        if FAULT == "dies":
            print("out of memory", file=sys.stderr)
            os._exit(3)
        if FAULT == "hangs":
            time.sleep(60)
        self._ctx.kv_cache_seq_rm(-1, self.n_tokens, -1)
        self._batch.set_batch(tokens, self.n_tokens, True)
        self._ctx.decode(self._batch)
        _logits = _logits[-1:].copy()
        self.n_tokens += len(tokens)
        assert self.n_tokens <= self._context
