"""What texts lose under the base model, against brute force."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from medusa_decoding.bench.loss import Loss, ReadText, imposed_tokens, read_text
from medusa_decoding.decoding import (
    LOOKUP,
    Acceptance,
    BestFirstPlanner,
    Context,
    Decoder,
    ExactAcceptance,
    Proposals,
    SamplingParameters,
    TypicalAcceptance,
)
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.sampling import uniform
from medusa_decoding.generation import Medusa
from tests.decoding.toy import ToyEngine, random_table

PROMPT = [1, 2, 0]
TYPICAL = TypicalAcceptance(0.2, math.sqrt(0.2))


def test_a_text_is_read_as_token_by_token_in_float64(tiny_medusa: Medusa) -> None:
    """Against a pass per token, a softmax and a search by hand."""
    from medusa_decoding.bench.compare import next_token_probabilities

    sampling = SamplingParameters(temperature=0.7, seed=5)
    tokens = np.random.default_rng(0).integers(0, 258, 12).tolist()
    # Some of them as the base model draws them, so that both answers are seen.
    drawn = tiny_medusa.generate(PROMPT, max_tokens=6, temperature=0.7, seed=5, ignore_eos=True).tokens
    tokens = [*drawn, *tokens]
    found = read_text(tiny_medusa.engine, PROMPT, tokens, sampling, [True] * len(tokens))
    for index, token in enumerate(tokens):
        p = next_token_probabilities(tiny_medusa.engine, [*PROMPT, *tokens[:index]]) ** (1 / 0.7)
        p /= p.sum()
        assert found.log_likelihoods[index] == pytest.approx(math.log(p[token]))
        assert found.entropies[index] == pytest.approx(-sum(x * math.log(x) for x in p))
        number, before = uniform(5, 0, index), p[:token].sum()
        assert found.others[index] == (not before <= number < before + p[token])
    assert not found.others[:6].any() and found.others[6:].any()


def test_a_token_that_truncation_leaves_out_is_infinitely_unlikely(tiny_medusa: Medusa) -> None:
    sampling = SamplingParameters(temperature=0.7, top_k=1)
    [best] = tiny_medusa.generate(PROMPT, max_tokens=1).tokens
    found = read_text(tiny_medusa.engine, PROMPT, [(best + 1) % 258], sampling, [True])
    assert found.log_likelihoods.tolist() == [-math.inf] and found.others.all()


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8, "repetition_penalty": 1.2}])
def test_exact_sampling_loses_nothing(tiny_medusa: Medusa, settings: dict[str, float]) -> None:
    """With heads and lookup: all tokens are the base model's draws, whoever guessed them."""
    texts, guessed = [], 0
    for seed in range(4):
        made = tiny_medusa.generate(
            PROMPT, max_tokens=40, temperature=0.7, seed=seed, ignore_eos=True, **settings
        )
        sampling = SamplingParameters(temperature=0.7, seed=seed, **settings)  # type: ignore[arg-type]
        assert tiny_medusa.acceptance is not None
        imposed = imposed_tokens(tiny_medusa.acceptance, 0.7, made.sources)
        texts.append(read_text(tiny_medusa.engine, PROMPT, made.tokens, sampling, imposed))
        guessed += sum(source != 0 for source in made.sources)
    loss = Loss.of(texts)
    assert (loss.tokens, loss.divergence, loss.not_drawn) == (160, 0.0, 0.0)
    assert guessed > 0
    assert math.isfinite(loss.log_likelihood)


def test_only_imposed_tokens_of_typical_acceptance_differ_from_the_draw(tiny_medusa: Medusa) -> None:
    typical = replace(tiny_medusa, acceptance=TYPICAL)
    texts = []
    for seed in range(4):
        made = typical.generate(PROMPT, max_tokens=60, temperature=0.7, seed=seed, ignore_eos=True)
        imposed = imposed_tokens(TYPICAL, 0.7, made.sources)
        sampling = SamplingParameters(temperature=0.7, seed=seed)
        texts.append(read_text(typical.engine, PROMPT, made.tokens, sampling, imposed))
    assert any((text.imposed & text.others).any() for text in texts)
    assert not any((~text.imposed & text.others).any() for text in texts)
    assert Loss.of(texts).divergence > 0 < Loss.of(texts).not_drawn


def test_imposed_are_guesses_that_nobody_drew() -> None:
    sources = [0, 1, LOOKUP, 0, 2]
    guesses = [False, True, True, False, True]
    assert imposed_tokens(TYPICAL, 0.7, sources) == guesses
    assert imposed_tokens(ExactAcceptance(), 0.7, sources) == [False] * 5
    assert (
        imposed_tokens(TYPICAL, 0.0, sources) == imposed_tokens(ExactAcceptance(), 0.0, sources) == [True] * 5
    )


def test_losses_are_means_over_all_tokens() -> None:
    first = ReadText(
        np.log([0.5, 0.25]), np.array([1.0, 2.0]), np.array([True, False]), np.array([True, False])
    )
    second = ReadText(np.log([0.125]), np.array([0.0]), np.array([True]), np.array([False]))
    loss = Loss.of([first, second])
    assert loss.tokens == 3
    assert loss.log_likelihood == pytest.approx(-(1 + 2 + 3) * math.log(2) / 3)
    assert loss.entropy == pytest.approx(1.0)
    assert loss.divergence == pytest.approx((1 + 3) * math.log(2) / 3)
    assert loss.not_drawn == pytest.approx(1 / 3)


class Fixed:
    """Guesses by the last two tokens alone, two heads with two guesses each."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._guesses = {
            (before, last): np.stack([random.permutation(vocabulary)[:2] for _ in range(2)])
            for before in range(vocabulary)
            for last in range(vocabulary)
        }

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        chances = np.array([[0.5, 0.3], [0.4, 0.3]])
        return [Proposals(self._guesses[c.tokens[-2], c.tokens[-1]], chances) for c in contexts]


@pytest.mark.parametrize("rule", [TYPICAL, TypicalAcceptance(0.05, 0.2), ExactAcceptance()])
def test_divergences_of_tokens_add_up_to_that_of_the_whole_text(rule: Acceptance) -> None:
    """All texts of 4 tokens over a vocabulary of 3. Their frequencies are those of products of q, and the
    divergence of these from the base model's, text by text, is the mean of what the tokens say.
    """
    engine, drafter, seeds, length = ToyEngine(random_table(3, 8, 1.0)), Fixed(3, 4), 1000, 4
    counts, read = defaultdict[tuple[int, ...], int](int), dict[tuple[int, ...], ReadText]()
    for seed in range(seeds):
        sampling = SamplingParameters(temperature=0.9, seed=seed)
        text = Text(list(PROMPT), sampling, max_tokens=length)
        sources: list[int] = []
        for step in Decoder(engine, drafter, BestFirstPlanner(6), rule).decode([text]):
            sources.extend(step.sources)
        imposed = imposed_tokens(rule, 0.9, sources)
        key = tuple(text.tokens)
        if key not in read:
            read[key] = read_text(engine, PROMPT, text.tokens, sampling, imposed)
        assert read[key].imposed.tolist() == imposed, "what is imposed depends on the text alone"
        counts[key] += 1
    written = {key: math.exp(one.log_likelihoods[~one.imposed].sum()) for key, one in read.items()}
    base = {key: math.exp(one.log_likelihoods.sum()) for key, one in read.items()}
    # But for the unlikeliest texts, which nobody wrote.
    assert 0.97 < sum(written.values()) < 1 + 1e-9, "q is a distribution of texts"
    for key, chance in written.items():
        assert counts[key] / seeds == pytest.approx(chance, abs=5 * math.sqrt(chance / seeds))
    whole = sum(counts[key] / seeds * math.log(written[key] / base[key]) for key in counts)
    each = [read[key] for key, count in counts.items() for _ in range(count)]
    assert length * Loss.of(each).divergence == pytest.approx(whole)
    assert (whole > 0.1) == (not rule.lossless)
