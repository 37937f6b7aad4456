from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.decoding import Distribution, SamplingParameters
from medusa_decoding.decoding.sampling import distribution, uniform
from medusa_decoding.decoding.tree import FloatArray

# Few different values, so that ties are common.
SCORES = st.lists(
    st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.25]) | st.floats(-5, 5),
    min_size=1,
    max_size=12,
)
PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 0.3, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 3, 8, 50]),
    top_p=st.sampled_from([1.0, 0.95, 0.9, 0.5, 0.1]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 0.7, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    logit_bias=st.sampled_from([{}, {0: 2.0}, {0: -5.0}]),
)


def dense(dist: Distribution, size: int) -> FloatArray:
    full = np.zeros(size)
    full[dist.ids] = dist.probabilities
    return full


def oracle(
    logits: Sequence[float], parameters: SamplingParameters, prompt: Sequence[int], text: Sequence[int]
) -> FloatArray:
    """The same by sorting, token by token, in the documented order."""
    scores = list(logits)
    for token in range(len(scores)):
        if token in prompt or token in text:
            up = scores[token] > 0
            scores[token] *= 1 / parameters.repetition_penalty if up else parameters.repetition_penalty
        count = list(text).count(token)
        if count:
            scores[token] -= parameters.presence_penalty + parameters.frequency_penalty * count
        scores[token] += parameters.logit_bias.get(token, 0.0)
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    if parameters.temperature == 0:
        return np.eye(len(scores))[order[0]]
    weights = {
        token: math.exp((scores[token] - scores[order[0]]) / parameters.temperature) for token in order
    }
    order = sorted(order, key=lambda token: (-weights[token], token))
    if parameters.top_k:
        order = order[: parameters.top_k]
    total, mass, nucleus = sum(weights[token] for token in order), 0.0, []
    for token in order:
        nucleus.append(token)
        mass += weights[token]
        if parameters.top_p < 1 and mass >= parameters.top_p * total:
            break
    kept = [token for token in nucleus if weights[token] >= parameters.min_p * weights[order[0]]]
    full = np.zeros(len(scores))
    full[kept] = [weights[token] for token in kept]
    return full / full.sum()


@settings(deadline=None, derandomize=True, max_examples=250)
@given(SCORES, PARAMETERS, st.lists(st.integers(0, 99), max_size=4), st.lists(st.integers(0, 99), max_size=4))
def test_distribution_equals_a_plain_oracle(
    scores: list[float], parameters: SamplingParameters, prompt: list[int], text: list[int]
) -> None:
    prompt, text = ([token % len(scores) for token in ids] for ids in (prompt, text))
    logits = np.array(scores)
    found = distribution(logits, parameters, prompt, text)
    assert logits.tolist() == scores, "the logits are the engine's own"
    assert (np.diff(found.ids) > 0).all()
    assert (found.probabilities > 0).all()
    # At the edge of top-p, sums in another order may differ in the last bit: only there is doubt allowed.
    expected = oracle(scores, parameters, prompt, text)
    assert np.allclose(dense(found, len(scores)), expected, atol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 99), st.sampled_from([0.1, 0.7, 0.95, 0.9999]), st.sampled_from([0, 300, 999]))
def test_nucleus_of_a_large_vocabulary(seed: int, top_p: float, top_k: int) -> None:
    """More than the first 256 likeliest tokens, with ties by rounding the logits."""
    scores = np.random.default_rng(seed).normal(0, 1, 1000).round(1)
    parameters = SamplingParameters(temperature=1.0, top_p=top_p, top_k=top_k)
    expected = oracle(scores.tolist(), parameters, [], [])
    assert np.allclose(dense(distribution(scores, parameters, [], []), 1000), expected, atol=1e-12)


def test_ties_at_the_edges_go_to_the_lowest_ids() -> None:
    level = np.zeros(8)
    level[5] = 1.0
    for parameters in (
        SamplingParameters(temperature=1.0, top_k=3),
        SamplingParameters(temperature=1.0, top_p=(math.e + 1.5) / (math.e + 7)),
    ):
        assert distribution(level, parameters, [], []).ids.tolist() == [0, 1, 5]
    assert distribution(np.zeros(8), SamplingParameters(), [], []).ids.tolist() == [0]


def test_repetition_sees_the_prompt_and_presence_only_the_text() -> None:
    hot = {"temperature": 1.0}
    logits = np.array([1.0, 1.0, 1.0, -1.0])
    repeated = distribution(logits, SamplingParameters(repetition_penalty=2.0, **hot), [0, 3], [1])
    assert np.allclose(np.log(repeated.probabilities / repeated.probabilities[2]), [-0.5, -0.5, 0, -3])
    present = distribution(logits, SamplingParameters(presence_penalty=0.5, **hot), [0, 3], [1, 1])
    assert np.allclose(np.log(present.probabilities / present.probabilities[2]), [0, -0.5, 0, -2])
    frequent = distribution(logits, SamplingParameters(frequency_penalty=0.5, **hot), [0, 3], [1, 1])
    assert np.allclose(np.log(frequent.probabilities / frequent.probabilities[2]), [0, -1, 0, -2])


def test_penalties_come_before_the_temperature() -> None:
    found = distribution(
        np.array([1.0, 1.0]), SamplingParameters(temperature=0.5, presence_penalty=0.5), [], [0]
    )
    assert found.probabilities[0] / found.probabilities[1] == pytest.approx(math.exp(-1))


def test_top_p_counts_the_mass_that_temperature_and_top_k_leave() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    parameters = SamplingParameters(temperature=1.0, top_k=2, top_p=0.56)
    assert distribution(logits, parameters, [], []).ids.tolist() == [0]
    cold = SamplingParameters(temperature=0.5, top_p=0.5)
    assert distribution(logits, cold, [], []).ids.tolist() == [0]


def test_top_p_of_the_whole_mass_keeps_everything() -> None:
    weights = np.random.default_rng(1).normal(0, 3, 700)
    parameters = SamplingParameters(temperature=1.0, top_p=float(np.nextafter(1, 0)))
    assert len(distribution(weights, parameters, [], []).ids) >= 699


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-300, 5e-324])
def test_tiny_temperatures_are_greedy(temperature: float) -> None:
    logits = np.array([1.0, 3.0, -2.0, 3.0 - 0.5])
    found = distribution(logits, SamplingParameters(temperature=temperature, top_p=0.9), [], [])
    assert (found.ids.tolist(), found.probabilities.tolist()) == ([1], [1.0])
    tied = distribution(np.array([3.0, 1.0, 3.0]), SamplingParameters(temperature=temperature), [], [])
    assert (tied.ids.tolist(), tied.probabilities.tolist()) == ([0, 2], [0.5, 0.5])


def test_greedy_with_a_penalty_looks_at_the_changed_logits() -> None:
    parameters = SamplingParameters(repetition_penalty=2.0)
    assert not parameters.is_argmax
    assert distribution(np.array([1.5, 1.0]), parameters, [0], []).ids.tolist() == [1]
    assert SamplingParameters(top_p=0.5, top_k=3, min_p=0.1).is_argmax
    assert not SamplingParameters(logit_bias={1: 1.0}).is_argmax


def test_banned_tokens_have_no_probability() -> None:
    logits = np.array([0.0, -np.inf, 1.0])
    assert distribution(logits, SamplingParameters(temperature=1.0, min_p=0.0), [], []).ids.tolist() == [0, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"logit_bias": {3: math.nan}},
        {"logit_bias": {3: math.inf}},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_values_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must "):
        SamplingParameters(**wrong)  # type: ignore[arg-type]


def test_uniform_depends_on_seed_choice_and_index_alone() -> None:
    keys = [
        (seed, choice, index)
        for seed in (0, 1, 2**63, 2**64 - 1)
        for choice in (0, 1, 7)
        for index in (0, 1, 99)
    ]
    there = [uniform(*key) for key in keys]
    back = [uniform(*key) for key in reversed(keys)]
    assert there == back[::-1]
    assert len(set(there)) == len(keys)


def test_uniform_is_the_same_on_every_machine() -> None:
    """Texts are a function of the seed for good, so these values may never change."""
    assert uniform(0, 0, 0) == 0.011546754286331562
    assert uniform(42, 1, 1000) == 0.02620816469566767


@pytest.mark.parametrize("varied", ["seed", "choice", "index"])
def test_uniform_is_uniform_along_each_key(varied: str) -> None:
    """Chi-square over 20 cells, and neighbours are not correlated; both fixed, so deterministic."""
    count, cells = 2000, 20
    values = np.array([uniform(**{"seed": 5, "choice": 3, "index": 2} | {varied: n}) for n in range(count)])
    assert ((values >= 0) & (values < 1)).all()
    observed = np.bincount((values * cells).astype(int), minlength=cells)
    # 50 is the 1e-4 quantile of chi-square with 19 degrees of freedom.
    assert ((observed - count / cells) ** 2 / (count / cells)).sum() < 50
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / math.sqrt(count)


def test_draw_inverts_the_cumulative_distribution() -> None:
    found = Distribution(np.array([2, 5, 9]), np.array([0.25, 0.5, 0.25]))
    edges = [(0.0, 2), (0.2499, 2), (0.25, 5), (0.7499, 5), (0.75, 9), (1 - 2**-53, 9)]
    assert [found.draw(value) for value, _ in edges] == [token for _, token in edges]


def test_draw_never_leaves_the_ids_by_rounding() -> None:
    third = Distribution(np.arange(3), np.full(3, 1 / 3))
    short = Distribution(np.arange(10), np.full(10, 0.1))
    for found in (third, short):
        assert found.draw(float(np.nextafter(1, 0))) == found.ids[-1]
        assert found.draw(0.0) == 0


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=9), st.floats(0, 1, exclude_max=True))
def test_draw_equals_a_linear_search(weights: list[float], value: float) -> None:
    chances = np.array(weights) / sum(weights)
    found = Distribution(np.arange(len(chances)) * 3, chances)
    total, token = 0.0, 3 * (len(chances) - 1)
    for place, chance in enumerate(chances.tolist()):
        total += chance
        if value * chances.cumsum()[-1] < total:
            token = 3 * place
            break
    assert found.draw(value) == token


def test_probability_and_entropy() -> None:
    found = Distribution(np.array([2, 5]), np.array([0.25, 0.75]))
    assert [found.probability(token) for token in (0, 2, 3, 5, 9)] == [0, 0.25, 0, 0.75, 0]
    assert found.entropy == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert Distribution(np.array([4]), np.array([1.0])).entropy == 0
