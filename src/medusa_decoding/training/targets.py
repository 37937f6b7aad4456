"""What heads should guess: the answer's own token, or the base model's whole distribution there."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Targets(Protocol):
    """A distribution over draft ids for each of n rows and K heads, looked at a piece at a time.

    The n rows are spans of consecutive positions, `span` rows each; a piece is a slice of spans.
    """

    span: int

    def look_at(self, spans: slice) -> None:
        """Make ready for these spans; the other methods speak of their rows and of one head."""

    def likely(self, head: int) -> Tensor:
        """(r,) a draft id that the target gives as much probability as any other."""

    def expected(self, logits: Tensor, head: int) -> Tensor:
        """(r,) mean of each row's `logits` (r, T) under the target."""

    def entropy(self, head: int) -> Tensor | float:
        """(r,) entropy of the target in nats."""

    def subtract_from(self, probabilities: Tensor, head: int) -> None:
        """Take the target away from `probabilities` (r, T) in place."""


class Labels:
    """The answer's tokens: with them the loss is cross-entropy. labels: (n, K) draft ids, below 0 if none."""

    def __init__(self, labels: Tensor, span: int = 1) -> None:
        self.span = span
        self._labels = labels.clamp_min(0)
        self._part = self._labels

    def look_at(self, spans: slice) -> None:
        """See `Targets`."""
        self._part = self._labels[spans.start * self.span : spans.stop * self.span]

    def likely(self, head: int) -> Tensor:
        """See `Targets`."""
        return self._part[:, head]

    def expected(self, logits: Tensor, head: int) -> Tensor:
        """See `Targets`."""
        return logits.gather(1, self._part[:, head, None])[:, 0]

    def entropy(self, head: int) -> Tensor | float:
        """See `Targets`."""
        return 0.0

    def subtract_from(self, probabilities: Tensor, head: int) -> None:
        """See `Targets`."""
        # Not scatter_add_, which copies the whole of a bfloat16 tensor to float32 and back.
        labels = self._part[:, head, None]
        probabilities.scatter_(1, labels, probabilities.gather(1, labels) - 1)


class Teacher:
    """The base model's distribution, cut to the draft vocabulary: with it the loss is KL divergence.

    The state that decided the token h places on is the base model's view of what head h guesses. In a span of
    L consecutive positions one state serves all heads (head h's at position i is head h - 1's at i + 1), so
    the projection runs on L + K - 1 states instead of L·K.

    states: (spans, L + K - 1, D), the states from each span's second position on, in the type to compute in.
    lm_head: (T, D), bias: (T,) or None, of the base model at the draft vocabulary.
    """

    def __init__(self, states: Tensor, num_heads: int, lm_head: Tensor, bias: Tensor | None) -> None:
        self.span = states.shape[1] - num_heads + 1
        self._states, self._lm_head, self._bias = states, lm_head, bias
        self._probabilities = self._entropy = self._likely = states

    def look_at(self, spans: slice) -> None:
        """See `Targets`."""
        logits = functional.linear(self._states[spans], self._lm_head, self._bias)
        self._probabilities = logits.softmax(-1)
        self._likely = logits.argmax(-1)
        normaliser = log_normaliser(logits, self._probabilities, self._likely)
        self._entropy = normaliser - _row_products(self._probabilities, logits)

    def likely(self, head: int) -> Tensor:
        """See `Targets`."""
        return self._of(self._likely, head).flatten()

    def expected(self, logits: Tensor, head: int) -> Tensor:
        """See `Targets`."""
        target = self._of(self._probabilities, head)
        return _row_products(target, logits.view_as(target)).flatten()

    def entropy(self, head: int) -> Tensor:
        """See `Targets`."""
        return self._of(self._entropy, head).flatten()

    def subtract_from(self, probabilities: Tensor, head: int) -> None:
        """See `Targets`."""
        target = self._of(self._probabilities, head)
        probabilities.view_as(target).sub_(target)

    def _of(self, values: Tensor, head: int) -> Tensor:
        return values[:, head : head + self.span]


def log_normaliser(logits: Tensor, probabilities: Tensor, likely: Tensor) -> Tensor:
    """(r,) log Σ exp of `logits` (r, T), in float32 at least, from their softmax that is there already.

    likely: (r,) a draft id of each row that is not hopeless: log Σ exp = logit - log probability of any id.
    Where its probability is below the smallest float the result is cut, and a loss ends at 87 nats.
    """
    logit, probability = (_wide(one.gather(-1, likely[..., None])[..., 0]) for one in (logits, probabilities))
    return logit - probability.clamp_min(torch.finfo(probability.dtype).tiny).log()


def _row_products(one: Tensor, other: Tensor) -> Tensor:
    """Inner products along the last dimension, summed in float32 at least."""
    kind = torch.promote_types(one.dtype, torch.float32)
    return (one * other).sum(-1, dtype=kind)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
