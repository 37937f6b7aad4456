"""The report of a bench: one JSON object, and a table for people.

    machine     processor, cores, threads, memory, versions, date
    model, engine, heads, suite, settings
    variants    autoregressive: tokens, seconds, tokens_per_second, steps, prefill (timed apart)
                medusa: the same, and acceleration_rate, overhead, speedup, identical, tokens_from,
                head_acceptance
    categories  acceleration_rate, speedup, identical, tokens_from and counts of each
    without_loops  the same figures without the turns whose plain text is a degenerate loop, and how many
                those are (left_out); of the whole suite, and in each category
    differences where texts differ: the first different token and how likely the base model found both
    skipped     turns that did not fit the context

Both variants count the same tokens: where the texts of a turn differ in length, those of the shorter one.
The token that comes out of the prefill is not counted. acceleration_rate: tokens per decoding step.
overhead: mean time of a step with guesses ÷ mean time of a plain step. speedup: tokens per second ÷ tokens
per second. A rate is null where there was no step to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from medusa_decoding.bench.machine import describe_machine
from medusa_decoding.bench.run import Comparison, Counts, Skipped
from medusa_decoding.bench.suite import Question, categories
from medusa_decoding.generation import GenerationOptions, Medusa

Json = dict[str, Any]


@dataclass(frozen=True)
class Totals:
    """Sums over some comparisons."""

    turns: int
    identical: int
    plain: Counts
    medusa: Counts

    @classmethod
    def of(cls, comparisons: Sequence[Comparison]) -> Totals:
        """Add up."""
        plain, medusa = Counts(), Counts()
        for one in comparisons:
            plain.add(one.plain.counts(one.length))
            medusa.add(one.medusa.counts(one.length))
        return cls(len(comparisons), sum(one.difference is None for one in comparisons), plain, medusa)

    @property
    def acceleration_rate(self) -> float | None:
        """Tokens per step with guesses."""
        return ratio(self.medusa.tokens, self.medusa.steps)

    @property
    def overhead(self) -> float | None:
        """Mean time of a step with guesses over that of a plain step."""
        return ratio(
            ratio(self.medusa.seconds, self.medusa.steps), ratio(self.plain.seconds, self.plain.steps)
        )

    @property
    def speedup(self) -> float | None:
        """Tokens per second over tokens per second."""
        return ratio(
            ratio(self.medusa.tokens, self.medusa.seconds), ratio(self.plain.tokens, self.plain.seconds)
        )

    def as_json(self) -> Json:
        """The rates, rounded, how many texts are identical, and who guessed their tokens."""
        return {
            "acceleration_rate": _rounded(self.acceleration_rate),
            "overhead": _rounded(self.overhead),
            "speedup": _rounded(self.speedup),
            "identical": {
                "texts": self.identical,
                "of": self.turns,
                "fraction": _rounded(ratio(self.identical, self.turns)),
            },
            "tokens_from": self.tokens_from,
        }

    @property
    def tokens_from(self) -> dict[str, int]:
        """How many tokens heads and prompt lookup guessed; the base model itself added the others."""
        by_heads, looked_up = sum(self.medusa.accepted), self.medusa.looked_up
        own = self.medusa.tokens - by_heads - looked_up
        return {"base_model": own, "heads": by_heads, "lookup": looked_up}


def ratio(above: float | None, below: float | None) -> float | None:
    """above ÷ below, or None where there is nothing to divide by."""
    return above / below if above is not None and below else None


def build_report(
    medusa: Medusa,
    suite: Path,
    questions: Sequence[Question],
    options: GenerationOptions,
    settings: Json,
    comparisons: Sequence[Comparison],
    skipped: Sequence[Skipped],
) -> Json:
    """The whole report. settings: what was asked for besides `options`, such as the tree."""
    totals = Totals.of(comparisons)
    return {
        **describe(medusa),
        "suite": {
            "file": suite.name,
            "questions": len(questions),
            "turns": len(comparisons),
            "categories": categories(questions),
        },
        "settings": {**options.model_dump(mode="json"), **settings},
        "variants": variants(totals, comparisons, medusa.heads.config.num_heads if medusa.heads else 0),
        "categories": {
            name: category([one for one in comparisons if one.question.category == name])
            for name in categories([one.question for one in comparisons])
        },
        "without_loops": without_loops(comparisons),
        "differences": [difference(medusa, one) for one in comparisons if one.difference is not None],
        "skipped": [
            {"question_id": one.question.question_id, "turn": one.turn, "reason": one.reason}
            for one in skipped
        ],
    }


def describe(medusa: Medusa) -> Json:
    """What was measured, and on what."""
    device = str(getattr(medusa.engine, "device", "cpu"))
    heads = medusa.heads
    return {
        "machine": describe_machine(device),
        "model": medusa.name,
        "fingerprint": medusa.fingerprint,
        "engine": {
            "name": type(medusa.engine).__name__,
            "device": device,
            "dtype": str(getattr(medusa.engine, "dtype", "")).removeprefix("torch."),
        },
        "lossless": medusa.acceptance is None or medusa.acceptance.lossless,
        "heads": None
        if heads is None
        else {"name": medusa.heads_name, **heads.config.model_dump(mode="json")},
        "drafting": medusa.drafting,
    }


def variants(totals: Totals, comparisons: Sequence[Comparison], heads: int) -> Json:
    """Figures of both variants over the whole suite.

    head_acceptance: of each head, the share of steps in which its guess became text.
    """
    plain = _variant(totals.plain, sum(one.plain.prefill_seconds for one in comparisons), comparisons)
    medusa = _variant(totals.medusa, sum(one.medusa.prefill_seconds for one in comparisons), comparisons)
    accepted = totals.medusa.accepted + [0] * (heads - len(totals.medusa.accepted))
    shares = [_rounded(ratio(count, totals.medusa.steps)) for count in accepted]
    nodes = _rounded(ratio(totals.medusa.nodes, totals.medusa.steps))
    return {
        "autoregressive": plain,
        "medusa": {**medusa, **totals.as_json(), "rows_per_step": nodes, "head_acceptance": shares},
    }


def category(comparisons: Sequence[Comparison]) -> Json:
    """Figures of one category."""
    return {**_figures(comparisons), "without_loops": without_loops(comparisons)}


def without_loops(comparisons: Sequence[Comparison]) -> Json:
    """Figures of the turns that do not loop: repetition is easily guessed and would flatter."""
    kept = [one for one in comparisons if not one.loops]
    return {"left_out": len(comparisons) - len(kept), **_figures(kept)}


def difference(medusa: Medusa, comparison: Comparison) -> Json:
    """Where the texts of one turn part."""
    found = comparison.difference
    assert found is not None
    return {
        "question_id": comparison.question.question_id,
        "turn": comparison.turn,
        "token_index": found.token_index,
        "tokens": {
            name: None if token is None else {"id": token, "text": show_token(medusa, token)}
            for name, token in zip(("autoregressive", "medusa"), found.tokens, strict=True)
        },
        "probabilities": dict(zip(("autoregressive", "medusa"), found.probabilities, strict=True)),
        "gap": found.gap,
    }


def show_token(medusa: Medusa, token: int) -> str:
    """A token's text, special tokens included."""
    return medusa.tokenizer.decode([token], skip_special=False)


UNLIKELY = 0.9
"""Overheads below it are not the decoder's doing."""


def table(report: Json) -> Table:
    """The report for people: a line per category and one for all of them, each followed by one without loops
    if there are any.
    """
    medusa, plain = report["variants"]["medusa"], report["variants"]["autoregressive"]
    kept = "" if report["lossless"] else ", typical acceptance: not lossless"
    result = Table(
        title=f"{report['model']} with {report['drafting']}{kept}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    result.add_column("category")
    for name in ("turns", "tokens", "guessed", "tokens/step", "speedup", "identical"):
        result.add_column(name, justify="right")
    for name, figures in report["categories"].items():
        result.add_row(name, str(figures["turns"]), *_cells(figures))
        _add_without_loops(result, figures["without_loops"])
    result.add_section()
    result.add_row("all", str(report["suite"]["turns"]), *_cells(medusa), style="bold")
    _add_without_loops(result, report["without_loops"])
    speeds = [_shown(figures["tokens_per_second"], 1) for figures in (plain, medusa)]
    overhead = _shown(medusa["overhead"])
    result.caption = "guessed: by heads + by lookup\n"
    result.caption += f"{speeds[0]} tokens/s plain, {speeds[1]} with guesses; overhead of a step {overhead}"
    if (medusa["overhead"] or 1.0) < UNLIKELY:
        result.caption += (
            "\nA step with guesses cannot be so much faster than one without: the machine was busy."
        )
    result.caption_justify = "left"
    return result


def _add_without_loops(result: Table, figures: Json) -> None:
    """A line only where some text was left out."""
    if figures["left_out"]:
        result.add_row("  no loops", str(figures["turns"]), *_cells(figures))


def _figures(comparisons: Sequence[Comparison]) -> Json:
    totals = Totals.of(comparisons)
    return {"turns": totals.turns, "tokens": totals.medusa.tokens, **totals.as_json()}


def _variant(counts: Counts, prefill_seconds: float, comparisons: Sequence[Comparison]) -> Json:
    return {
        "tokens": counts.tokens,
        "seconds": _rounded(counts.seconds),
        "tokens_per_second": _rounded(ratio(counts.tokens, counts.seconds)),
        "steps": counts.steps,
        "prefill": {
            "tokens": sum(one.plain.prompt_tokens for one in comparisons),
            "seconds": _rounded(prefill_seconds),
        },
    }


def _cells(figures: Json) -> tuple[str, ...]:
    identical, tokens, origin = figures["identical"], figures["tokens"], figures["tokens_from"]
    return (
        str(tokens),
        "+".join(_share(origin[name], tokens) for name in ("heads", "lookup")) + " %",
        _shown(figures["acceleration_rate"]),
        _shown(figures["speedup"]),
        f"{identical['texts']}/{identical['of']}",
    )


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f}" if total else "-"


def _shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
