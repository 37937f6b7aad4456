"""From answers to training positions: which hidden state should guess which tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medusa_decoding.distill.answers import Answer
from medusa_decoding.distill.hidden_cache import HiddenStates
from medusa_decoding.errors import UserError
from medusa_decoding.training.loss import IGNORED, OUTSIDE

# Answers read from the cache at a time: bounds the memory held besides the positions themselves.
_READ_ANSWERS = 512
# A draft vocabulary that is chosen: percent of the held-out tokens in it, and what its size is a multiple of.
_COVERED_PERCENT = 99
_SIZE_STEP = 1024


@dataclass(frozen=True)
class Positions:
    """The N tokens of answers, answer by answer; each is a root at which heads guess.

    hidden: (N, D) hidden states that decided the roots. roots: (N,) target ids of the answers' tokens there.
    labels: (N, K) what head k should guess, k tokens after the root: draft ids, IGNORED after the answer's
    end, OUTSIDE for tokens that are not in the draft vocabulary. The prompt's tokens are neither. So the
    state k rows on decided what head k should guess, unless that is IGNORED.
    """

    hidden: Tensor
    roots: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.roots)

    def rows_with_labels(self) -> Tensor:
        """The rows at which there is something to guess: all but each answer's last."""
        return torch.nonzero(self.labels[:, 0] != IGNORED).flatten()


def split(answers: Sequence[Answer], fraction: float) -> tuple[list[Answer], list[Answer]]:
    """(training, validation) by a hash of the prompt's id, so that a text never changes sides as the file
    grows, and answers to one prompt stand on one side.

    With `fraction` > 0 and several prompts, each side has one at least.
    """
    groups = sorted({answer.group for answer in answers}, key=_place)
    count = sum(_place(group) < fraction for group in groups)
    if fraction > 0:
        count = min(max(count, 1), len(groups) - 1)
    held_out = set(groups[:count])
    ranked = sorted(answers, key=lambda answer: _place(answer.group))
    return (
        [answer for answer in ranked if answer.group not in held_out],
        [answer for answer in ranked if answer.group in held_out],
    )


def draft_vocabulary(
    answers: Sequence[Answer], size: int, always: Iterable[int], vocabulary_size: int
) -> Tensor:
    """(T,) the `size` most frequent tokens of the answers as rising ids, those of `always` among them.

    Ties, and places that no token of the answers takes, go to the lowest id. Raises UserError when there
    are fewer tokens than that.
    """
    if size > vocabulary_size:
        raise UserError(
            f"a draft vocabulary of {size} is larger than the model's ({vocabulary_size}); give a smaller one"
        )
    return _by_frequency(answers, always, vocabulary_size)[:size].sort().values


def auto_size(
    training: Sequence[Answer], held_out: Sequence[Answer], always: Iterable[int], vocabulary_size: int
) -> int:
    """The least T for which `draft_vocabulary` of the training answers holds 99 % of the held-out tokens: a
    multiple of 1,024, or the whole vocabulary.

    Raises UserError without held-out answers.
    """
    if not held_out:
        raise UserError(
            "there is one text only and none to choose the draft vocabulary by; give it as a number"
        )
    places = torch.empty(vocabulary_size, dtype=torch.int64)
    places[_by_frequency(training, always, vocabulary_size)] = torch.arange(vocabulary_size)
    needed = places[_tokens(held_out)].sort().values
    last = int(needed[-(-len(needed) * _COVERED_PERCENT // 100) - 1])
    return min((last // _SIZE_STEP + 1) * _SIZE_STEP, vocabulary_size)


def coverage(answers: Sequence[Answer], token_map: Tensor | None) -> float:
    """The share of the answers' tokens that are in the draft vocabulary."""
    if token_map is None:
        return 1.0
    return float(torch.isin(_tokens(answers), token_map).double().mean()) if answers else 1.0


def check_ids(answers: Sequence[Answer], vocabulary_size: int) -> None:
    """Raises UserError when an answer holds a token that the base model does not have."""
    largest = int(_tokens(answers).max())
    if largest >= vocabulary_size:
        raise UserError(
            f"the answers hold token {largest}, but the model's ids end at {vocabulary_size - 1};"
            " give the model that wrote them"
        )


def build_positions(
    answers: Sequence[Answer],
    cache: HiddenStates,
    num_heads: int,
    hidden_size: int,
    token_map: Tensor | None,
    vocabulary_size: int,
) -> Positions:
    """All positions of the answers.

    Raises UserError where a cached hidden state does not fit its answer.
    """
    total = sum(len(answer.answer_ids) for answer in answers)
    hidden = torch.empty(total, hidden_size, dtype=torch.float16)
    start = 0
    for first in range(0, len(answers), _READ_ANSWERS):
        part = answers[first : first + _READ_ANSWERS]
        states = cache.read(answer.key for answer in part)
        for answer in part:
            own = _checked(states[answer.key], answer, hidden_size, cache)
            if own.dtype != hidden.dtype and hidden.dtype == torch.float16:
                hidden = hidden.float()
            hidden[start : start + len(own)] = own
            start += len(own)
    roots = torch.tensor([token for answer in answers for token in answer.answer_ids], dtype=torch.int64)
    labels = torch.cat(
        [torch.empty(0, num_heads, dtype=torch.int64)]
        + [following_tokens(answer.answer_ids, num_heads) for answer in answers]
    )
    return Positions(hidden, roots, as_draft_ids(labels, token_map, vocabulary_size))


def following_tokens(answer_ids: Sequence[int], num_heads: int) -> Tensor:
    """(n, K): entry (i, k - 1) is the token k places after token i, IGNORED where the answer has ended.

    >>> following_tokens([7, 8, 9], 2).tolist()
    [[8, 9], [9, -1], [-1, -1]]
    """
    padded = torch.tensor([*answer_ids, *[IGNORED] * num_heads])
    return padded.unfold(0, num_heads, 1)[1:].clone()


def as_draft_ids(tokens: Tensor, token_map: Tensor | None, vocabulary_size: int) -> Tensor:
    """Target ids to draft ids; tokens without one become OUTSIDE, IGNORED stays."""
    if token_map is None:
        return tokens
    draft_ids = torch.full((vocabulary_size,), OUTSIDE)
    draft_ids[token_map] = torch.arange(len(token_map))
    return torch.where(tokens == IGNORED, IGNORED, draft_ids[tokens.clamp_min(0)])


def _checked(states: Tensor, answer: Answer, hidden_size: int, cache: HiddenStates) -> Tensor:
    wanted = (len(answer.answer_ids), hidden_size)
    if tuple(states.shape) != wanted:
        raise UserError(
            f"{cache.folder_of(answer.key)} holds hidden states of shape {tuple(states.shape)}"
            f" for answer {answer.key}, which needs {wanted}; give another hidden cache"
        )
    return states


def _place(group: str) -> float:
    """A number in [0, 1) that depends on the prompt's id alone."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64


def _by_frequency(answers: Sequence[Answer], always: Iterable[int], vocabulary_size: int) -> Tensor:
    """(V,) all ids, `always` first, then by falling frequency; ties by id."""
    counts = torch.bincount(_tokens(answers), minlength=vocabulary_size)
    ends = torch.tensor([token for token in always if token < vocabulary_size], dtype=torch.int64)
    counts[ends] = counts.max() + 1
    return counts.argsort(descending=True, stable=True)


def _tokens(answers: Sequence[Answer]) -> Tensor:
    return torch.tensor([token for answer in answers for token in answer.answer_ids], dtype=torch.int64)
