"""`medusa demo`: one prompt, answered plainly and with guesses."""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from medusa_decoding.cli import options as take
from medusa_decoding.cli.fields import spread
from medusa_decoding.cli.loading import is_lossless, load_medusa
from medusa_decoding.cli.terminal import busy, coloured, legend, rates, write_pieces
from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from medusa_decoding.bench.compare import Difference
    from medusa_decoding.generation import Generation, GenerationOptions, Medusa

# Its gain is near the median of 40 ordinary prompts (benchmarks/smollm2-against.json).
PROMPT = "Explain in three steps how to make tea."
ROUNDS = 5
PATIENCE = 2.0
"""Seconds; slower answers are not repeated."""
_BOLD, _GREEN, _RED = "1", "1;32", "1;31"


@spread
def demo(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for the other verbs.")] = "smollm2",
    prompt: Annotated[str, typer.Option("--prompt", "-p", metavar="TEXT", help="What to ask.")] = PROMPT,
    max_tokens: take.MaxTokens = 128,
    choice: take.Choice,
    loading: take.Loading,
) -> int:
    """Answer one prompt plainly and with guesses of heads and prompt lookup, and compare.

    The text is the same, the forward passes are fewer. The exit status is 1 where the texts differ.
    """
    from medusa_decoding.generation.options import GenerationOptions

    options = GenerationOptions.of(None, {**choice.fields(), "max_tokens": max_tokens})
    medusa = load_medusa(model, loading)
    from medusa_decoding.bench.compare import first_difference
    from medusa_decoding.bench.run import NOTHING_GUESSES, warm_up

    if not medusa.drafts:
        raise UserError(NOTHING_GUESSES.format(model))
    warm_up(medusa, prompt)
    _title(f"{medusa.name}: {prompt}")
    plain = _show(medusa, prompt, options, speculative=False)
    drafted = _show(medusa, prompt, options, speculative=True)
    difference = first_difference(medusa.engine, medusa.encode(prompt), plain.tokens, drafted.tokens)
    speeds = _more_rounds(medusa, prompt, options, (plain, drafted))
    _conclude(medusa, plain, drafted, difference, speeds)
    return 0 if difference is None else 1


def _show(medusa: Medusa, prompt: str, options: GenerationOptions, *, speculative: bool) -> Generation:
    """Write one answer as it comes, with its figures below."""
    kept = "" if is_lossless(medusa) else ", typical acceptance: not lossless"
    _title(f"with {_guessers(medusa)}{kept}" if speculative else "plainly, one token per step")
    if speculative and coloured("x", _BOLD, sys.stdout) != "x":
        print(legend(medusa))
    stream = medusa.stream(prompt, options, speculative=speculative)
    write_pieces(stream, show_drafts=speculative)
    print(coloured(f"  {rates(stream.result.statistics)}", _BOLD, sys.stdout))
    return stream.result


def _more_rounds(
    medusa: Medusa, prompt: str, options: GenerationOptions, first: tuple[Generation, Generation]
) -> tuple[float, float]:
    """Median tokens per second plainly and with guesses, of the answers shown and further ones in turn: a
    single short one says little about a machine on which other programs run.
    """
    rates = tuple([one.statistics.tokens_per_second] for one in first)
    quick = max(one.statistics.decode_seconds for one in first) < PATIENCE
    with busy("comparing speeds ..."):
        for _ in range(ROUNDS - 1 if quick else 0):
            for speculative, found in zip((False, True), rates, strict=True):
                again = medusa.generate(prompt, options, speculative=speculative)
                found.append(again.statistics.tokens_per_second)
    return median(rates[0]), median(rates[1])


def _guessers(medusa: Medusa) -> str:
    heads = [f"{medusa.heads.config.num_heads} Medusa heads"] if medusa.heads is not None else []
    return " and ".join([*heads, *(["prompt lookup"] if medusa.lookup is not None else [])])


def _conclude(
    medusa: Medusa,
    plain: Generation,
    drafted: Generation,
    difference: Difference | None,
    speeds: tuple[float, float],
) -> None:
    print()
    if difference is None:
        print(coloured("identical: yes", _GREEN, sys.stdout))
    else:
        print(coloured("identical: no", _RED, sys.stdout) + f", {describe(medusa, difference)}")
    before, after = plain.statistics, drafted.statistics
    speedup = speeds[1] / speeds[0] if speeds[0] else 1.0
    print(f"{len(plain.tokens)} tokens: {before.steps} steps plainly, {after.steps} with guesses, ", end="")
    print(f"{speedup:.2f} times the speed on this machine")


def describe(medusa: Medusa, difference: Difference) -> str:
    """The first difference in words."""
    shown = [
        "the end"
        if token is None
        else f"{medusa.tokenizer.decode([token], skip_special=False)!r} ({chance:.4g})"
        for token, chance in zip(difference.tokens, difference.probabilities, strict=True)
    ]
    gap = "" if difference.gap is None else f", probability gap {difference.gap:.2g}"
    return f"from token {difference.token_index + 1}: {shown[0]} plainly, {shown[1]} with guesses{gap}"


def _title(text: str) -> None:
    print("\n" + coloured(text, _BOLD, sys.stdout))
