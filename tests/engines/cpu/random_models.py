"""Random Llama-like models of arrays, and what the CPU engine says about rows that run all by themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from medusa_decoding import _native
from medusa_decoding.decoding import Rows, Tree
from medusa_decoding.decoding.protocols import as_rows, concatenate
from medusa_decoding.engines.cpu.engine import CpuEngine, KvCache
from medusa_decoding.engines.cpu.packed import Weights, pack_model
from medusa_decoding.engines.cpu.shape import LlamaShape
from medusa_decoding.models.llama_weights import expected_weights

VOCABULARY = 37  # fills no whole panel
CONTEXT = 220  # positions of several pages
ISAS = _native.instruction_sets()


@dataclass(frozen=True)
class RandomModel:
    """What `pack_model` takes, in memory."""

    shape: LlamaShape
    tensors: dict[str, NDArray[np.float32]]
    kv_cache: KvCache = "fp32"

    @property
    def names(self) -> Collection[str]:
        return self.tensors.keys()

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.tensors[name]

    def engine(self, weights: Weights, threads: int = 1, isa: str = "auto") -> CpuEngine:
        return CpuEngine(self.shape, pack_model(self, weights, 1), threads, isa, self.kv_cache)


def shape_of(*, head_dim: int = 16, kv_heads: int = 2, group: int = 2, **fields: Any) -> LlamaShape:
    """A small shape; Qwen3's, with norms of queries and keys, if `architecture` says so."""
    values: dict[str, Any] = {
        "architecture": "llama",
        "layers": 2,
        "hidden_size": 48,
        "intermediate_size": 56,
        "vocabulary_size": VOCABULARY,
        "norm_epsilon": 1e-5,
        "context_length": CONTEXT,
        "inverse_frequencies": tuple(0.7**i for i in range(head_dim // 2)),
    }
    return LlamaShape(**values | fields, head_dim=head_dim, kv_heads=kv_heads, heads=kv_heads * group)


def random_model(
    shape: LlamaShape,
    seed: int = 0,
    *,
    biased: bool = False,
    coarse: bool = False,
    kv_cache: KvCache = "fp32",
) -> RandomModel:
    """Weights large enough for every row to depend on all rows it sees; norms near 1.

    coarse: weights as those of 4-bit checkpoints.
    """
    random = np.random.default_rng(seed)
    tensors = {}
    for name, size in expected_weights(shape, biased=biased).items():
        values = random.standard_normal(size) * (1.5 / np.sqrt(size[-1]) if len(size) == 2 else 0.2)
        tensors[name] = (values + ("norm" in name)).astype(np.float32)
        if coarse and len(size) == 2 and size[-1] % 32 == 0:
            tensors[name] = coarsened(tensors[name])
    return RandomModel(shape, tensors, kv_cache)


def coarsened(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sixteen evenly spaced values in each 32 input channels, as Q4_1 has them."""
    groups = weights.reshape(-1, 32)
    low = groups.min(axis=1, keepdims=True).astype(np.float16).astype(np.float32)
    step = ((groups.max(axis=1, keepdims=True) - low) / 15).astype(np.float16).astype(np.float32)
    codes = np.clip(np.round((groups - low) / np.where(step == 0, 1, step)), 0, 15)
    return (low + step * codes.astype(np.float32)).reshape(weights.shape)


shapes = st.builds(
    shape_of,
    architecture=st.sampled_from(["llama", "qwen3"]),
    head_dim=st.sampled_from([16, 64]),
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 4),
    # Below, at and above the block of 256 channels that share a scale; 40 fills no whole panel.
    hidden_size=st.sampled_from([40, 48, 256, 264, 320]),
    intermediate_size=st.sampled_from([56, 280, 320]),
    window=st.none() | st.sampled_from([1, 5, 13, 70]),
    rope_amplitude=st.sampled_from([1.0, 1.2]),
    tied=st.booleans(),
)
models = st.builds(
    random_model,
    shapes,
    st.integers(0, 2**31),
    biased=st.booleans(),
    coarse=st.booleans(),
    kv_cache=st.sampled_from(["fp32", "fp16"]),
)
kinds: st.SearchStrategy[Weights] = st.sampled_from(["int8", "fp32"])


def chain(tokens: Sequence[int]) -> Tree:
    return Tree(np.array(tokens, np.int64), np.arange(len(tokens)) - 1, np.ones(len(tokens)))


def random_tree(random: np.random.Generator, nodes: int) -> Tree:
    """Bushy or deep, with several roots."""
    reach = int(random.integers(1, 6))
    parents = [int(random.integers(max(-1, node - reach), node)) for node in range(nodes)]
    return Tree(random.integers(0, VOCABULARY, nodes), np.array(parents, np.int64), np.ones(nodes))


def random_tokens(random: np.random.Generator, count: int) -> list[int]:
    return [int(token) for token in random.integers(0, VOCABULARY, count)]


@dataclass
class Texts:
    """An engine and the tokens that each of its sequences holds."""

    engine: CpuEngine
    tokens: dict[int, list[int]] = field(default_factory=dict)

    def open(self) -> int:
        handle = self.engine.open()
        self.tokens[handle] = []
        return handle

    def fork(self, handle: int, length: int) -> int:
        child = self.engine.fork(handle, length)
        self.tokens[child] = self.tokens[handle][:length]
        return child

    def truncate(self, handle: int, length: int) -> None:
        self.engine.truncate(handle, length)
        del self.tokens[handle][length:]

    def rows(self, trees: dict[int, Tree]) -> Rows:
        """All trees in one call, each at its sequence's end."""
        return concatenate(
            [
                as_rows(
                    handle,
                    tree.tokens,
                    len(self.tokens[handle]),
                    tree.parents,
                    tree.depths,
                    np.ones(len(tree), bool),
                )
                for handle, tree in trees.items()
            ]
        )

    def forward(self, trees: dict[int, Tree]) -> list[bytes]:
        """The bits of logits and hidden state of every row, in the order of the rows."""
        verified = self.engine.forward(self.rows(trees))
        found = []
        for row in range(sum(map(len, trees.values()))):
            logits = verified.logits(row)
            assert verified.argmax(np.array([row])) == [np.argmax(logits)]
            found.append(logits.tobytes() + verified.hidden(row).tobytes())
        return found

    def commit(self, trees: dict[int, Tree], nodes: dict[int, int]) -> None:
        """Keep the path to one node of each tree that is named."""
        kept, offset = list[int](), 0
        for handle, tree in trees.items():
            if handle in nodes:
                path = tree.path(nodes[handle])
                kept += [offset + node for node in path]
                self.tokens[handle] += tree.tokens[path].tolist()
            offset += len(tree)
        self.engine.commit(np.array(kept, np.int64))

    def feed(self, handle: int, tokens: Sequence[int], piece: int = CONTEXT) -> None:
        """Prefill, `piece` rows a call."""
        for start in range(0, len(tokens), piece):
            part = tokens[start : start + piece]
            trees = {handle: chain(part)}
            self.engine.forward(self.rows(trees))
            self.commit(trees, {handle: len(part) - 1})

    def next(self, handle: int, token: int = 3) -> bytes:
        """The bits of a row behind the text, which is not kept."""
        return self.forward({handle: chain([token])})[0]


def alone(engine: CpuEngine, tokens: Sequence[int]) -> list[bytes]:
    """The bits of every row of a text, one row a call in a sequence of its own."""
    texts = Texts(engine)
    handle, found = texts.open(), []
    for token in tokens:
        found.append(texts.next(handle, token))
        texts.commit({handle: chain([token])}, {handle: 0})
    engine.close(handle)
    return found


def tree_alone(engine: CpuEngine, text: Sequence[int], tree: Tree) -> list[bytes]:
    """The bits of every row of a tree behind a text, as `alone` finds them."""
    texts = Texts(engine)
    handle, found = texts.open(), []
    texts.feed(handle, text, piece=1)
    for node in range(len(tree)):
        *path, last = tree.tokens[tree.path(node)].tolist()
        texts.feed(handle, path, piece=1)
        found.append(texts.next(handle, last))
        texts.truncate(handle, len(text))
    engine.close(handle)
    return found
