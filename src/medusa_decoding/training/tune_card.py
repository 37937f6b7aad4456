"""What the model card says of a tuning."""

from __future__ import annotations

import re

from medusa_decoding.training.card import stamped, unstamped
from medusa_decoding.training.tune_report import Measurement, TuneReport

HEADING = "## Tuning"


def with_tuning(card: str, report: TuneReport) -> str:
    """The card with a section on this tuning, in place of an earlier one; an edited card stays one."""
    text, generated = unstamped(card)
    rest = re.sub(rf"^{HEADING}\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL).rstrip()
    text = f"{rest}\n\n{section(report)}"
    return stamped(text) if generated else text


def section(report: TuneReport) -> str:
    """Accuracy and reliability by temperature and head, acceleration rates, and the best static tree."""
    lines = [
        HEADING,
        "By `medusa tune`, on places where all heads before guessed right: how often the head's first choice"
        " was right, and the expected calibration error before → after (by a fit on other texts).",
        "",
        "| temperature | texts | head | places | right | calibration error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in report.measured:
        for head, right in enumerate(one.right):
            error = f"{one.error_before[head]:.3f} → {one.error_after[head]:.3f}"
            where = f"{one.temperature:g} | {one.texts} | {head + 1} | {one.on_path[head]}"
            lines.append(f"| {where} | {right:.3f} | {error} |")
    lines += _rates(report.measured)
    rows, tokens = report.static["rows"], report.static["tokens_per_step"]
    lines += [
        "",
        f"Best static tree of {rows} rows ({tokens:.2f} tokens per step on the texts that chose it):"
        f" `{report.medusa_choices}`.",
    ]
    return "\n".join(lines) + "\n"


def _rates(measured: list[Measurement]) -> list[str]:
    """Tokens per step of best-first trees, by their size."""
    if not measured:
        return []
    sizes = list(measured[0].trees_after)
    lines = [
        "",
        "Acceleration rate, in tokens per step, of best-first trees of so many rows:",
        "",
        f"| temperature | {' | '.join(f'{size} rows' for size in sizes)} |",
        f"| --- |{' --- |' * len(sizes)}",
    ]
    for one in measured:
        rates = " | ".join(f"{one.trees_after[size][1]:.2f}" for size in sizes)
        lines.append(f"| {one.temperature:g} | {rates} |")
    return lines
