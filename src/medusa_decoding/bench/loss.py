"""What an acceptance that is not lossless does to texts, by the base model's own word.

Typical acceptance puts the guesses that it finds plausible into the text without a draw, and draws the other
tokens from the base model. So given the text before a token, and the tree that was grown there, the token's
distribution q is either all on one token x, with KL(q || p) = -log p(x), or it is the base model's p, with 0.
Where the tree depends on nothing but the text before it, the divergences of a text's tokens add up, in the
mean over texts, to the divergence of the whole text's distribution from the base model's (chain rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medusa_decoding.bench.reading import logits_after
from medusa_decoding.decoding import Acceptance, Engine, SamplingParameters
from medusa_decoding.decoding.sampling import distribution, uniform
from medusa_decoding.decoding.tree import BoolArray, FloatArray


@dataclass(frozen=True)
class ReadText:
    """A text's tokens under the base model's processed distributions p, each in its own context.

    log_likelihoods: (tokens,) log p(x) in nats, -inf where p leaves the token out. entropies: (tokens,) of p,
    in nats. imposed: (tokens,) whether the token was put there without a draw. others: (tokens,) whether the
    base model's draw for that place in the text, by the same seed, is another token.
    """

    log_likelihoods: FloatArray
    entropies: FloatArray
    imposed: BoolArray
    others: BoolArray


def read_text(
    engine: Engine,
    prompt: Sequence[int],
    tokens: Sequence[int],
    sampling: SamplingParameters,
    imposed: Sequence[bool],
    choice: int = 0,
) -> ReadText:
    """Look at `tokens`, written after `prompt`, in one reading of the base model.

    sampling, choice: how the base model's tokens are drawn. imposed: see `imposed_tokens`.
    """
    likelihoods, entropies, others = list[float](), list[float](), list[bool]()
    read = logits_after(engine, [*prompt, *tokens][:-1], len(prompt) - 1)
    for index, (token, logits) in enumerate(zip(tokens, read, strict=True)):
        p = distribution(logits, sampling, prompt, tokens[:index])
        likelihoods.append(p.probability(token))
        entropies.append(p.entropy)
        others.append(p.draw(uniform(sampling.seed, choice, index)) != token)
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(likelihoods))
    return ReadText(logs, np.array(entropies), np.array(imposed, np.bool_), np.array(others, np.bool_))


def imposed_tokens(rule: Acceptance, temperature: float, sources: Sequence[int]) -> list[bool]:
    """Which tokens of a text were put there without a draw: all at temperature 0, where none is drawn; none
    of a lossless rule; else those that were guessed.

    temperature, sources: of the text as it was written (`Generation.sources`).
    """
    if temperature == 0:
        return [True] * len(sources)
    return [not rule.lossless and source != 0 for source in sources]


@dataclass(frozen=True)
class Loss:
    """Means over all tokens of some texts, in nats, those that came out of the prefill included.

    log_likelihood, entropy: of p, as in `ReadText`; in texts drawn from p the first is minus the second, but
    for chance. divergence: KL(q || p) by the module's text. not_drawn: the share of tokens that are not the
    base model's draw for their place.
    """

    tokens: int
    log_likelihood: float
    entropy: float
    divergence: float
    not_drawn: float

    @classmethod
    def of(cls, texts: Sequence[ReadText]) -> Loss:
        """Over at least one token."""
        likelihoods = np.concatenate([text.log_likelihoods for text in texts])
        imposed = np.concatenate([text.imposed for text in texts])
        return cls(
            len(likelihoods),
            float(likelihoods.mean()),
            float(np.concatenate([text.entropies for text in texts]).mean()),
            # A mean over all tokens, of which those that were drawn count 0.
            float(-likelihoods[imposed].sum() / len(likelihoods)) + 0.0,
            float(np.concatenate([text.others for text in texts]).mean()),
        )
