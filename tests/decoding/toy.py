"""A toy base model without torch: the next token depends on the last two tokens, through a table of logits.

Its engine checks at each call that the loop keeps the rules of `decoding.protocols.Engine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from medusa_decoding.decoding import Context, Decoder, Proposals, Rows
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.tree import FloatArray, IntArray


def random_table(vocabulary: int, seed: int, spread: float = 1.5) -> FloatArray:
    """(vocabulary, vocabulary, vocabulary) logits of the token after (last but one, last)."""
    return np.random.default_rng(seed).normal(0, spread, (vocabulary, vocabulary, vocabulary))


class ToyVerified:
    """Logits by table; the hidden state of a row is the text up to that row, so that tests can look at it."""

    def __init__(self, engine: ToyEngine, rows: Rows, texts: list[list[int]]) -> None:
        self.engine, self.rows, self.texts = engine, rows, texts

    def argmax(self, rows: IntArray) -> IntArray:
        assert len(rows)
        return np.array([np.argmax(self.logits(row)) for row in rows.tolist()], np.int64)

    def logits(self, row: int) -> FloatArray:
        self._check(row)
        return self.engine.logits_after(self.texts[row])

    def hidden(self, row: int) -> tuple[int, ...]:
        self._check(row)
        return tuple(self.texts[row])

    def _check(self, row: int) -> None:
        assert self.engine.last is self, "asked after the next forward"
        assert self.rows.wanted[row], "asked for a row that was not wanted"


@dataclass
class ToyEngine:
    """The table as an engine. `sizes` records the rows of each call; `texts` what is committed."""

    table: FloatArray
    context_length: int = 1000
    texts: dict[int, list[int]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    last: ToyVerified | None = None
    open_pass: ToyVerified | None = None
    handles: int = 0

    @property
    def vocabulary_size(self) -> int:
        return self.table.shape[2]

    def logits_after(self, text: Sequence[int]) -> FloatArray:
        """The logits of the token after `text`; token 0 stands before its beginning."""
        before, last = [0, 0, *text][-2:]
        return self.table[before, last]

    def open(self) -> int:
        self.handles += 1
        self.texts[self.handles] = []
        return self.handles

    def close(self, sequence: int) -> None:
        del self.texts[sequence]

    def fork(self, sequence: int, length: int) -> int:
        handle = self.open()
        assert 0 <= length <= len(self.texts[sequence])
        self.texts[handle] = self.texts[sequence][:length]
        return handle

    def kv_bytes(self, lengths: Sequence[int]) -> int:
        return sum(lengths)

    def truncate(self, sequence: int, length: int) -> None:
        assert 0 <= length <= len(self.texts[sequence])
        del self.texts[sequence][length:]

    def forward(self, rows: Rows) -> ToyVerified:
        assert self.open_pass is None, "forward twice without commit"
        assert len(rows)
        handles = rows.sequences.tolist()
        blocks = [handle for place, handle in enumerate(handles) if handles[place - 1 : place] != [handle]]
        assert len(blocks) == len(set(blocks)), "rows of a sequence stand apart"
        texts: list[list[int]] = []
        for row, (handle, token, parent) in enumerate(
            zip(handles, rows.tokens.tolist(), rows.parents.tolist(), strict=True)
        ):
            assert parent < row
            assert parent < 0 or handles[parent] == handle
            texts.append([*(self.texts[handle] if parent < 0 else texts[parent]), token])
            assert rows.positions[row] == len(texts[row]) - 1
            assert rows.positions[row] < self.context_length
        self.sizes.append(len(rows))
        self.last = self.open_pass = ToyVerified(self, rows, texts)
        return self.last

    def commit(self, accepted: IntArray) -> None:
        assert self.open_pass is not None, "commit without forward"
        rows, texts = self.open_pass.rows, self.open_pass.texts
        deepest: dict[int, int] = {}
        for row in accepted.tolist():
            handle = int(rows.sequences[row])
            assert rows.parents[row] == deepest.get(handle, -1), "accepted rows are no path"
            deepest[handle] = row
        for handle, row in deepest.items():
            self.texts[handle] = texts[row]
        self.open_pass = None


class RandomDrafter:
    """Guesses at random: each head different tokens with falling probabilities."""

    def __init__(self, heads: int, ranks: int, vocabulary: int, seed: int) -> None:
        self.heads, self.ranks, self.vocabulary = heads, min(ranks, vocabulary), vocabulary
        self.random = np.random.default_rng(seed)

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        return [self._guess() for _ in contexts]

    def _guess(self) -> Proposals:
        tokens = [self.random.permutation(self.vocabulary)[: self.ranks] for _ in range(self.heads)]
        chances = np.sort(self.random.dirichlet(np.ones(self.ranks + 1), self.heads)[:, 1:])[:, ::-1]
        return Proposals(np.array(tokens, np.int64).reshape(self.heads, self.ranks), chances)


@dataclass
class KnowingDrafter:
    """Knows texts (prompt included) and guesses their next tokens, among other tokens and sometimes not."""

    texts: list[list[int]]
    vocabulary: int
    heads: int = 4
    ranks: int = 3
    right: float = 1.0
    seed: int = 0
    seen: list[Context] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        self.seen.extend(contexts)
        return [self._guess(list(context.tokens)) for context in contexts]

    def _guess(self, known: list[int]) -> Proposals:
        text = next((text for text in self.texts if text[: len(known)] == known), known)
        ahead = text[len(known) : len(known) + self.heads]
        chances = np.linspace(0.6, 0.1, self.ranks)
        rows = [self._ranks(ahead[head] if head < len(ahead) else None) for head in range(self.heads)]
        return Proposals(np.array(rows, np.int64), np.tile(chances, (self.heads, 1)))

    def _ranks(self, right: int | None) -> list[int]:
        others = [int(token) for token in self.random.permutation(self.vocabulary) if token != right]
        guesses = others[: self.ranks]
        if right is not None and self.random.random() < self.right:
            guesses[int(self.random.integers(self.ranks)) if self.right < 1 else 0] = right
        return guesses


def decoded(decoder: Decoder, *texts: Text) -> list[list[int]]:
    """Decode to the ends; the texts' tokens."""
    for _ in decoder.decode(texts):
        pass
    return [text.tokens for text in texts]


def connected_subtrees(depth: int, ranks: int) -> Iterator[frozenset[tuple[int, ...]]]:
    """Every connected subtree of the full tree below the root, as the set of its paths of ranks."""
    shapes = [frozenset[tuple[int, ...]]()]
    for rank in range(ranks if depth else 0):
        below = [
            frozenset([(rank,), *((rank, *path) for path in one)])
            for one in connected_subtrees(depth - 1, ranks)
        ]
        shapes = [shape | more for shape in shapes for more in [frozenset(), *below]]
    yield from shapes
