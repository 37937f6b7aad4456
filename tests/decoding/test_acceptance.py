from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import (
    Distribution,
    ExactAcceptance,
    SamplingParameters,
    Tree,
    TypicalAcceptance,
)
from medusa_decoding.decoding.sampling import distribution, uniform
from tests.decoding.toy import random_table

VOCABULARY = 4


@dataclass
class TableJudge:
    """The base model is a table of logits by (parent's token, node's token)."""

    tree: Tree
    seed: int
    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    asked: list[int] = field(default_factory=list)

    def distribution(self, node: int, guessed: Sequence[int]) -> Distribution:
        assert self.tree.tokens[self.tree.path(node)[1:]].tolist() == list(guessed)
        self.asked.append(node)
        before, last = [0, int(self.tree.tokens[0]), *guessed][-2:]
        return distribution(random_table(VOCABULARY, self.seed)[before, last], self.sampling, [], guessed)

    def choose(self, node: int, guessed: Sequence[int]) -> int:
        return self.distribution(node, guessed).draw(uniform(self.sampling.seed, 0, len(guessed)))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Random trees whose siblings hold different tokens."""
    tokens, parents, taken = [draw(st.integers(0, VOCABULARY - 1))], [-1], set()
    for _ in range(draw(st.integers(0, 14))):
        parent = draw(st.integers(0, len(tokens) - 1))
        token = draw(st.integers(0, VOCABULARY - 1))
        if (parent, token) not in taken:
            taken.add((parent, token))
            tokens.append(token)
            parents.append(parent)
    return Tree(np.array(tokens), np.array(parents), np.ones(len(tokens)))


@settings(deadline=None, derandomize=True)
@given(trees(), st.integers(0, 9), st.sampled_from([0.0, 0.7, 1.5]))
def test_the_walk_is_the_longest_path_of_the_plain_text(tree: Tree, seed: int, temperature: float) -> None:
    judge = TableJudge(tree, seed, SamplingParameters(temperature=temperature, seed=seed))
    plain: list[int] = []
    for _ in range(len(tree) + 1):
        before, last = [0, int(tree.tokens[0]), *plain][-2:]
        dist = distribution(random_table(VOCABULARY, seed)[before, last], judge.sampling, [], plain)
        plain.append(dist.draw(uniform(seed, 0, len(plain))))
    agreeing = [
        tree.path(node)
        for node in range(len(tree))
        if tree.tokens[tree.path(node)[1:]].tolist() == plain[: tree.depths[node]]
    ]
    longest = max(agreeing, key=len)
    accepted = ExactAcceptance().accept(tree, judge)
    assert accepted.path == longest
    assert accepted.tokens == plain[: len(longest)]
    assert judge.asked == longest, "rows off the path are never looked at"


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    trees(),
    st.integers(0, 9),
    st.sampled_from([0.3, 0.8, 2.0]),
    st.sampled_from([(0.09, 0.3), (0.3, 1.0), (0.01, 0.05), (0.6, 0.9)]),
)
def test_typical_acceptance_equals_a_literal_oracle(
    tree: Tree, seed: int, temperature: float, levels: tuple[float, float]
) -> None:
    epsilon, delta = levels
    judge = TableJudge(tree, seed, SamplingParameters(temperature=temperature, seed=seed))
    scored = []
    for node in range(len(tree)):
        path = tree.path(node)
        likelihood, good = 0.0, True
        for parent, child in pairwise(path):
            guessed = tree.tokens[tree.path(parent)[1:]].tolist()
            p = judge.distribution(parent, guessed)
            dense = np.zeros(VOCABULARY)
            dense[p.ids] = p.probabilities
            entropy = -sum(x * math.log(x) for x in dense if x > 0)
            chance = float(dense[tree.tokens[child]])
            good &= chance > min(epsilon, delta * math.exp(-entropy))
            likelihood += math.log(chance)
        if good:
            scored.append((len(path), likelihood, path))
    best = max(scored)
    guessed = tree.tokens[best[2][1:]].tolist()
    accepted = TypicalAcceptance(epsilon, delta).accept(tree, judge)
    assert accepted.path == best[2]
    assert accepted.tokens == [*guessed, judge.choose(best[2][-1], guessed)]


@settings(deadline=None, derandomize=True)
@given(trees(), st.integers(0, 9))
def test_typical_acceptance_is_greedy_at_temperature_0(tree: Tree, seed: int) -> None:
    exact = ExactAcceptance().accept(tree, TableJudge(tree, seed))
    assert TypicalAcceptance().accept(tree, TableJudge(tree, seed)) == exact


def test_typical_acceptance_prefers_length_then_likelihood() -> None:
    """Two siblings pass the threshold: the likelier one wins, unless the other has a child that passes."""
    seed = 3
    chances = np.exp(random_table(VOCABULARY, seed)[0, 1])
    first, second = np.argsort(-chances)[:2]
    siblings = Tree(np.array([1, second, first]), np.array([-1, 0, 0]), np.ones(3))
    rule = TypicalAcceptance(epsilon=1e-6)
    hot = SamplingParameters(temperature=1.0)
    assert rule.accept(siblings, TableJudge(siblings, seed, hot)).path == [0, 2]
    longer = Tree(np.array([1, second, first, 0]), np.array([-1, 0, 0, 1]), np.ones(4))
    assert rule.accept(longer, TableJudge(longer, seed, hot)).path == [0, 1, 3]


def test_typical_acceptance_follows_the_seed() -> None:
    tree = Tree(np.array([1]), np.array([-1]), np.ones(1))
    emitted = {
        TypicalAcceptance().accept(tree, TableJudge(tree, 3, SamplingParameters(1.0, seed=seed))).tokens[0]
        for seed in range(40)
    }
    assert len(emitted) > 1


def test_the_threshold_is_strict() -> None:
    """Four equal tokens: p = 0.25 and delta * exp(-H) = delta / 4."""

    class Level:
        def distribution(self, node: int, guessed: Sequence[int]) -> Distribution:
            return Distribution(np.arange(4), np.full(4, 0.25))

        def choose(self, node: int, guessed: Sequence[int]) -> int:
            return 0

    tree = Tree(np.array([0, 1]), np.array([-1, 0]), np.ones(2))
    assert TypicalAcceptance(epsilon=0.25, delta=1.0).accept(tree, Level()).path == [0]
    assert TypicalAcceptance(epsilon=0.24, delta=1.0).accept(tree, Level()).path == [0, 1]
    assert TypicalAcceptance(epsilon=0.9, delta=0.99).accept(tree, Level()).path == [0, 1]


def test_tokens_without_probability_are_never_accepted() -> None:
    """A guess outside top-k has p = 0, which is above no threshold."""
    sampling = SamplingParameters(temperature=1.0, top_k=1)
    worst = int(np.argmin(random_table(VOCABULARY, 5)[0, 1]))
    tree = Tree(np.array([1, worst]), np.array([-1, 0]), np.ones(2))
    assert TypicalAcceptance(epsilon=1e-9).accept(tree, TableJudge(tree, 5, sampling)).path == [0]


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0.3), (1, 0.3), (0.1, 0), (0.1, 1.1), (math.nan, 0.3)])
def test_typical_acceptance_checks_its_levels(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        TypicalAcceptance(epsilon, delta)


def test_who_promises_what() -> None:
    assert ExactAcceptance.lossless
    assert not TypicalAcceptance.lossless
