from __future__ import annotations

import doctest
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import Proposals, Tree, tree
from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.tree import ancestor_mask, parse_choices, static_tree
from tests.decoding.toy import connected_subtrees

EXAMPLE = Proposals(np.array([[21, 22], [31, 32]]), np.array([[0.6, 0.3], [0.5, 0.4]]))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    parents = [-1] + [draw(st.integers(0, node)) for node in range(draw(st.integers(0, 12)))]
    tokens = np.arange(len(parents)) + 5
    return Tree(tokens, np.array(parents), np.full(len(parents), 0.5))


@st.composite
def proposals(draw: st.DrawFn) -> Proposals:
    heads, ranks = draw(st.sampled_from([(1, 1), (1, 4), (2, 2), (2, 3), (3, 1), (3, 2)]))
    chance = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0])
    chances = [
        sorted(draw(st.lists(chance, min_size=ranks, max_size=ranks)), reverse=True) for _ in range(heads)
    ]
    tokens = np.arange(heads * ranks).reshape(heads, ranks)
    return Proposals(tokens, np.array(chances))


@cache
def shapes(depth: int, ranks: int) -> list[frozenset[tuple[int, ...]]]:
    return list(connected_subtrees(depth, ranks))


def ranks_of(grown: Tree, guesses: Proposals) -> list[tuple[int, ...]]:
    """Each node's path of ranks, found again from its tokens."""
    return [
        tuple(
            guesses.tokens[depth].tolist().index(grown.tokens[node])
            for depth, node in enumerate(grown.path(last)[1:])
        )
        for last in range(len(grown))
    ]


def chance_of(path: tuple[int, ...], guesses: Proposals) -> float:
    return float(np.prod([guesses.probabilities[head, rank] for head, rank in enumerate(path)]))


def test_doctests() -> None:
    results = doctest.testmod(tree)
    assert results.attempted >= 6
    assert results.failed == 0


def test_worked_example() -> None:
    grown = best_first(11, EXAMPLE, 5)
    assert grown.tokens.tolist() == [11, 21, 22, 31, 32]
    assert grown.parents.tolist() == [-1, 0, 0, 1, 1]
    assert grown.probabilities.tolist() == pytest.approx([1, 0.6, 0.3, 0.3, 0.24])
    assert grown.depths.tolist() == [0, 1, 1, 2, 2]
    assert [grown.children(node) for node in range(5)] == [[1, 2], [3, 4], [], [], []]
    assert (grown.child(0, 22), grown.child(2, 31), grown.child(1, 99)) == (2, None, None)


@settings(deadline=None, derandomize=True)
@given(proposals(), st.integers(1, 12), st.one_of(st.none(), st.integers(-1, 4)))
def test_best_first_is_the_best_connected_subtree(guesses: Proposals, nodes: int, depth: int | None) -> None:
    grown = best_first(99, guesses, nodes, depth)
    limit = max(0, guesses.depth if depth is None else min(depth, guesses.depth))
    paths = ranks_of(grown, guesses)
    assert len(set(paths)) == len(grown) <= nodes
    assert grown.tokens[0] == 99
    assert grown.probabilities.tolist() == pytest.approx([chance_of(path, guesses) for path in paths])
    assert (np.diff(grown.probabilities) <= 0).all()
    best = max(
        sum(chance_of(path, guesses) for path in shape)
        for shape in shapes(limit, guesses.tokens.shape[1])
        if len(shape) < nodes
    )
    assert grown.probabilities[1:].sum() == pytest.approx(best)
    possible = [path for path in shapes(limit, guesses.tokens.shape[1])[-1] if chance_of(path, guesses) > 0]
    assert len(grown) == min(nodes, 1 + len(possible))


def test_the_full_tree_is_the_last_shape() -> None:
    assert shapes(2, 3)[-1] == max(shapes(2, 3), key=len)
    assert len(shapes(2, 3)) == 729


def test_best_first_breaks_ties_by_opening() -> None:
    level = Proposals(np.array([[1, 2], [3, 4]]), np.full((2, 2), 1.0))
    assert best_first(0, level, 7).tokens.tolist() == [0, 1, 2, 3, 3, 4, 4]


@settings(deadline=None, derandomize=True)
@given(trees())
def test_depths_paths_and_mask_equal_a_brute_force_oracle(grown: Tree) -> None:
    ancestors = []
    for node in range(len(grown)):
        chain, above = [node], int(grown.parents[node])
        while above != -1:
            chain, above = [above, *chain], int(grown.parents[above])
        ancestors.append(chain)
        assert grown.path(node) == chain
        assert grown.depths[node] == len(chain) - 1
        assert grown.children(node) == [other for other in range(len(grown)) if grown.parents[other] == node]
        for other in grown.children(node):
            assert grown.child(node, int(grown.tokens[other])) == other
    expected = [[column in chain for column in range(len(grown))] for chain in ancestors]
    assert ancestor_mask(grown.parents).tolist() == expected


@settings(deadline=None, derandomize=True)
@given(trees(), trees())
def test_mask_of_two_trees_is_block_diagonal(first: Tree, second: Tree) -> None:
    shifted = np.where(second.parents < 0, -1, second.parents + len(first))
    mask = ancestor_mask(np.concatenate([first.parents, shifted]))
    size = len(first)
    assert (mask[:size, :size] == ancestor_mask(first.parents)).all()
    assert (mask[size:, size:] == ancestor_mask(second.parents)).all()
    assert not mask[:size, size:].any() and not mask[size:, :size].any()


@settings(deadline=None, derandomize=True)
@given(trees(), st.integers(0, 5))
def test_up_to_depth_keeps_the_paths_of_what_it_keeps(grown: Tree, depth: int) -> None:
    cut = grown.up_to_depth(depth)
    kept = [node for node in range(len(grown)) if grown.depths[node] <= depth]
    assert cut.tokens.tolist() == grown.tokens[kept].tolist()
    for place, node in enumerate(kept):
        assert cut.tokens[cut.path(place)].tolist() == grown.tokens[grown.path(node)].tolist()


def test_no_proposals_make_the_root_alone() -> None:
    for nothing in (Proposals.none(), Proposals(np.zeros((3, 0), np.int64), np.zeros((3, 0)))):
        assert nothing.depth == 0
        assert best_first(7, nothing, 16).tokens.tolist() == [7]
        assert static_tree(7, nothing, ((0,), (0, 0))).tokens.tolist() == [7]


def test_parse_choices_orders_parents_first() -> None:
    assert parse_choices([[2, 0], [0, 0, 1], [2], [0, 0], [0]]) == ((0,), (2,), (0, 0), (2, 0), (0, 0, 1))
    assert parse_choices([]) == ()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([[]], "[] is not a path"),
        ([[0], [-1]], "[-1] is not a path"),
        ([[0], ["a"]], "['a'] is not a path"),
        ([[0], [0, 1.0]], "[0, 1.0] is not a path"),
        ([[True]], "[True] is not a path"),
        ([[0], [None], [0, 0]], "[None] is not a path"),
        ([[0], [1], [0]], "[0] stands twice"),
        ([[0], [1, 0]], "[1] is missing"),
    ],
)
def test_parse_choices_names_what_is_wrong(paths: list[list[object]], message: str) -> None:
    with pytest.raises(ValueError, match="path") as caught:
        parse_choices(paths)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_static_tree_fills_the_topology() -> None:
    choices = parse_choices([[0], [1], [0, 0], [0, 1], [1, 1]])
    grown = static_tree(11, EXAMPLE, choices)
    assert grown.tokens.tolist() == [11, 21, 22, 31, 32, 32]
    assert grown.parents.tolist() == [-1, 0, 0, 1, 1, 2]
    assert grown.probabilities.tolist() == pytest.approx([1, 0.6, 0.3, 0.3, 0.24, 0.12])


def test_static_tree_leaves_out_what_the_heads_do_not_reach() -> None:
    choices = parse_choices([[0], [1], [2], [0, 0], [2, 0], [0, 2], [0, 0, 0], [0, 0, 0, 1]])
    grown = static_tree(11, EXAMPLE, choices)
    assert ranks_of(grown, EXAMPLE) == [(), (0,), (1,), (0, 0)]
    assert ranks_of(static_tree(11, EXAMPLE, choices, 1), EXAMPLE) == [(), (0,), (1,)]
    assert len(static_tree(11, EXAMPLE, choices, 0)) == len(static_tree(11, EXAMPLE, choices, -1)) == 1


@settings(deadline=None, derandomize=True)
@given(proposals(), st.sets(st.tuples(st.integers(0, 4)) | st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_static_tree_equals_a_filter_of_its_choices(guesses: Proposals, paths: set[tuple[int, ...]]) -> None:
    choices = parse_choices(paths | {path[:1] for path in paths})
    grown = static_tree(99, guesses, choices)
    heads, ranks = guesses.tokens.shape
    expected = [path for path in choices if len(path) <= heads and max(path) < ranks]
    assert ranks_of(grown, guesses) == [(), *expected]


@settings(deadline=None, derandomize=True)
@given(proposals(), st.integers(1, 12), st.integers(1, 12))
def test_a_first_part_of_a_best_first_tree_is_the_smaller_best_first_tree(
    guesses: Proposals, nodes: int, more: int
) -> None:
    cut, grown = best_first(9, guesses, nodes + more).prefix(nodes), best_first(9, guesses, nodes)
    for name in ("tokens", "parents", "probabilities", "depths"):
        assert getattr(cut, name).tolist() == getattr(grown, name).tolist()
    assert grown.depths.tolist() == Tree(grown.tokens, grown.parents, grown.probabilities).depths.tolist()
