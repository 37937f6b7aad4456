"""How good a side's weights are: the perplexity of a text, the same for all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from medusa_decoding.bench.peers.result import Text
from medusa_decoding.bench.peers.side import Side
from medusa_decoding.decoding.tree import FloatArray
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa

MOST_TOKENS = 1024
PACKAGED = "quality.txt"


def read_quality_text(path: Path | None, medusa: Medusa) -> tuple[Text, list[int]]:
    """The text, and its first `MOST_TOKENS` token ids, fewer where the context is shorter.

    path: None takes the packaged one. Raises UserError for a file that cannot be read or has no two tokens.
    """
    source = files(__package__) / PACKAGED if path is None else path
    try:
        content = source.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read the text {path}: {error.strerror}; give a text file") from None
    except UnicodeDecodeError:
        raise UserError(f"the text {path} is not UTF-8; give a text file") from None
    tokens = medusa.encode(text, raw=True)[: min(MOST_TOKENS, medusa.context_length - 1)]
    if len(tokens) < 2:
        raise UserError(f"the text {path} is too short to tell anything: give a page of text")
    name = PACKAGED if path is None else path.name
    return Text(name=name, sha256=hashlib.sha256(content).hexdigest(), tokens=len(tokens)), tokens


def perplexity(side: Side, tokens: Sequence[int]) -> float | None:
    """exp of the mean loss per token after the first; None where the side cannot tell."""
    total = side.log_likelihood(tokens)
    return None if total is None else math.exp(-total / (len(tokens) - 1))


def summed(logits: Iterable[FloatArray], tokens: Sequence[int]) -> float:
    """Log-likelihood of `tokens` in nats. logits: (vocabulary,) before each of them."""
    return sum(float(row[token]) - _normaliser(row) for row, token in zip(logits, tokens, strict=True))


def _normaliser(logits: FloatArray) -> float:
    highest = float(logits.max())
    return highest + math.log(float(np.exp(logits.astype(np.float64) - highest).sum()))
