"""The distribution of sampled texts against the exact one, over all texts of three tokens.

Seeds are fixed, so the tests are deterministic; a wrong rule must fail the same check.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import chi2

from medusa_decoding.decoding import (
    Acceptance,
    BestFirstPlanner,
    Decoder,
    Planner,
    SamplingParameters,
    StaticPlanner,
    TypicalAcceptance,
)
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.acceptance import Accepted, Judge
from medusa_decoding.decoding.sampling import distribution
from medusa_decoding.decoding.tree import Tree, parse_choices
from tests.decoding.toy import RandomDrafter, ToyEngine, decoded, random_table

VOCABULARY, SIZE, TEXTS = 4, 3, 1600
PROMPT = [1, 2]
LEAST = 1e-4
CHOICES = parse_choices([[0], [1], [0, 0], [0, 1], [1, 0], [2]])
PARAMETERS = {
    "plain": SamplingParameters(temperature=1.0),
    "top_p": SamplingParameters(temperature=0.9, top_p=0.8),
    "penalties": SamplingParameters(
        temperature=1.0, top_p=0.95, repetition_penalty=1.6, presence_penalty=0.3, frequency_penalty=0.4
    ),
}

BESIDE = {
    "plain": [SamplingParameters(temperature=1.3), SamplingParameters(temperature=1.0, top_p=0.95)],
    "top_p": [SamplingParameters(temperature=0.9, top_p=0.95), SamplingParameters(temperature=0.9, top_k=2)],
    "penalties": [
        SamplingParameters(temperature=1.0, top_p=0.95, repetition_penalty=1.6),
        SamplingParameters(temperature=1.0, top_p=0.95, presence_penalty=0.3, frequency_penalty=0.4),
    ],
}


def exact(parameters: SamplingParameters) -> dict[tuple[int, ...], float]:
    """The probability of each text, by enumeration."""
    base = ToyEngine(random_table(VOCABULARY, seed=2))
    chances = {}
    for text in product(range(VOCABULARY), repeat=SIZE):
        chance = 1.0
        for place, token in enumerate(text):
            seen = [*PROMPT, *text[:place]]
            found = distribution(base.logits_after(seen), parameters, PROMPT, text[:place])
            chance *= found.probability(token)
        chances[text] = chance
    assert sum(chances.values()) == pytest.approx(1)
    return chances


def sampled(
    parameters: SamplingParameters, planner: Planner, acceptance: Acceptance | None = None
) -> list[tuple[int, ...]]:
    """Many texts, drafted at random; half of them differ in the seed, half in the choice."""
    texts = [
        Text(
            PROMPT,
            SamplingParameters(**{**vars(parameters), "seed": 100 + max(0, number - TEXTS // 2)}),
            max_tokens=SIZE,
            choice=number if number <= TEXTS // 2 else 0,
        )
        for number in range(TEXTS)
    ]
    drafter = RandomDrafter(heads=2, ranks=3, vocabulary=VOCABULARY, seed=7)
    decoder = Decoder(ToyEngine(random_table(VOCABULARY, seed=2)), drafter, planner, acceptance)
    tokens = decoded(decoder, *texts)
    assert sum(text.statistics.steps for text in texts) < (SIZE - 1) * TEXTS * 0.8, "guesses are accepted"
    return [tuple(text) for text in tokens]


def p_value(texts: list[tuple[int, ...]], chances: dict[tuple[int, ...], float]) -> float:
    """Pearson's test; cells that expect fewer than five texts are joined."""
    counts = dict.fromkeys(chances, 0)
    for text in texts:
        counts[text] += 1
    if any(counts[text] for text, chance in chances.items() if chance == 0):
        return 0.0
    large = [text for text, chance in chances.items() if chance * len(texts) >= 5]
    expected = np.array([chances[text] * len(texts) for text in large])
    observed = np.array([counts[text] for text in large], float)
    if (rest := len(texts) - expected.sum()) > 1:
        expected, observed = np.append(expected, rest), np.append(observed, len(texts) - observed.sum())
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(chi2.sf(statistic, len(expected) - 1))


@pytest.mark.parametrize(
    ("name", "planner"),
    [
        ("plain", BestFirstPlanner(6)),
        ("top_p", StaticPlanner(CHOICES)),
        ("penalties", BestFirstPlanner(6)),
    ],
    ids=["plain", "top_p", "penalties"],
)
def test_exact_sampling_has_the_exact_distribution(name: str, planner: Planner) -> None:
    """And not that of settings a little beside: the check is sharp enough to see those."""
    parameters = PARAMETERS[name]
    texts = sampled(parameters, planner)
    assert p_value(texts, exact(parameters)) > LEAST
    for other in BESIDE[name]:
        assert p_value(texts, exact(other)) < LEAST


class FreshAfterMiss:
    """Wrong: where no child was drawn, the emitted token is drawn again."""

    lossless = True

    def accept(self, tree: Tree, judge: Judge) -> Accepted:
        path, tokens = [0], list[int]()
        while (child := tree.child(path[-1], judge.choose(path[-1], tokens))) is not None:
            tokens.append(int(tree.tokens[child]))
            path.append(child)
        found = judge.distribution(path[-1], tokens)
        again = np.random.default_rng(len(tokens) + int(1e6 * found.probabilities[0])).random()
        return Accepted(path, [*tokens, found.draw(float(again))])


@pytest.mark.parametrize("rule", [TypicalAcceptance(), FreshAfterMiss()], ids=["typical", "fresh"])
def test_a_wrong_rule_fails_the_same_check(rule: Acceptance) -> None:
    parameters = PARAMETERS["plain"]
    assert p_value(sampled(parameters, BestFirstPlanner(6), rule), exact(parameters)) < LEAST
