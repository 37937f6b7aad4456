"""Trees of both, against every tree there is."""

from __future__ import annotations

import doctest
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import LOOKUP, BestFirstPlanner, Proposals, Tree
from medusa_decoding.decoding import best_first as module
from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.tree import FloatArray

Path = tuple[int, ...]
CHANCES = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0])
TOKENS = range(4)


@st.composite
def both(draw: st.DrawFn) -> Proposals:
    """Guesses of heads and branches over four tokens, so that they meet."""
    heads, ranks = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    tokens = [draw(st.permutations(TOKENS))[:ranks] for _ in range(heads)]
    chances = [
        sorted(draw(st.lists(CHANCES, min_size=ranks, max_size=ranks)), reverse=True) for _ in range(heads)
    ]
    parents, names, given_chances = [-1], [9], [1.0]
    for _ in range(draw(st.integers(0, 6))):
        parent, token = draw(st.integers(0, len(parents) - 1)), draw(st.sampled_from(TOKENS))
        if (parent, token) not in zip(parents, names, strict=True):
            parents.append(parent)
            names.append(token)
            given_chances.append(given_chances[parent] * draw(CHANCES))
    branches = Tree(np.array(names), np.array(parents), np.array(given_chances))
    table = np.array(tokens, np.int64).reshape(heads, ranks)
    return Proposals(table, np.array(chances).reshape(heads, ranks), branches)


def chances_of(guesses: Proposals, depth: int) -> dict[Path, tuple[float, bool]]:
    """Every path of guesses: its probability, and whether its last token was looked up."""
    branches = guesses.branches
    assert branches is not None
    offered: dict[Path, FloatArray] = {
        tuple(branches.tokens[branches.path(node)[1:]].tolist()): branches.probabilities[node]
        for node in range(len(branches))
    }
    found: dict[Path, tuple[float, bool]] = {(): (1.0, False)}
    for size in range(1, depth + 1):
        for path in product(TOKENS, repeat=size):
            above = found.get(path[:-1])
            heads = guesses.tokens[size - 1].tolist() if size <= len(guesses.tokens) else []
            if above is None or not (path in offered or path[-1] in heads):
                continue
            parent = offered.get(path[:-1], 0.0)
            looked_up = float(offered[path] / parent) if path in offered and parent else 0.0
            by_head = (
                float(guesses.probabilities[size - 1, heads.index(path[-1])]) if path[-1] in heads else 0.0
            )
            found[path] = (above[0] * max(looked_up, by_head), looked_up > by_head)
    return found


def test_doctests() -> None:
    results = doctest.testmod(module)
    assert (results.attempted > 0, results.failed) == (True, 0)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(both(), st.integers(1, 12), st.one_of(st.none(), st.integers(-1, 4)))
def test_the_likeliest_nodes_of_both_are_taken(guesses: Proposals, nodes: int, depth: int | None) -> None:
    grown = best_first(9, guesses, nodes, depth)
    assert guesses.branches is not None
    reach = max(guesses.depth, int(guesses.branches.depths.max()))
    expected = chances_of(guesses, max(0, reach if depth is None else min(reach, depth)))
    paths = [tuple(grown.tokens[grown.path(node)[1:]].tolist()) for node in range(len(grown))]
    assert len(set(paths)) == len(grown) <= nodes
    assert grown.tokens[0] == 9
    assert all(parent < node for node, parent in enumerate(grown.parents.tolist()))
    assert grown.depths.tolist() == [len(path) for path in paths]
    for node, path in enumerate(paths):
        chance, looked_up = expected[path]
        assert grown.probabilities[node] == pytest.approx(chance)
        assert (grown.sources[node] == LOOKUP) == looked_up
        assert looked_up or grown.sources[node] == len(path)
    # No child is likelier than its parent, so the likeliest paths are the best connected tree.
    possible = sorted((chance for chance, _ in expected.values() if chance > 0), reverse=True)
    assert grown.probabilities.tolist() == pytest.approx(possible[:nodes])


@settings(deadline=None, derandomize=True)
@given(both(), st.integers(1, 8), st.integers(0, 4))
def test_parts_of_a_tree_keep_who_guessed(guesses: Proposals, nodes: int, depth: int) -> None:
    grown = best_first(9, guesses, 12)
    cut = grown.prefix(nodes)
    assert cut.sources.tolist() == grown.sources[:nodes].tolist()
    assert cut.sources.tolist() == best_first(9, guesses, nodes).sources.tolist()
    shallow = grown.up_to_depth(depth)
    assert shallow.sources.tolist() == grown.sources[grown.depths <= depth].tolist()


def test_heads_guess_on_below_what_was_looked_up() -> None:
    heads = Proposals(np.array([[1], [2], [3]]), np.array([[0.3], [0.8], [0.9]]))
    branch = Tree(np.array([9, 7]), np.array([-1, 0]), np.array([1.0, 0.9]))
    grown = best_first(9, Proposals(heads.tokens, heads.probabilities, branch), 4)
    assert grown.tokens.tolist() == [9, 7, 2, 3]
    assert grown.sources.tolist() == [0, LOOKUP, 2, 3]


def test_a_guess_below_the_least_gets_no_row() -> None:
    branch = Tree(np.array([9, 7, 8, 6]), np.array([-1, 0, 1, 2]), np.array([1.0, 0.7, 0.5, 0.4]))
    [tree] = BestFirstPlanner(16, least=0.5).grow([9], [Proposals.of(branch)], [9], [5])
    assert tree.tokens.tolist() == [9, 7, 8]
