"""What the model card says of a tuning."""

from __future__ import annotations

import re

from medusa_decoding.training.tune_report import TuneReport

HEADING = "## Tuning"


def with_tuning(card: str, report: TuneReport) -> str:
    """The card with a section on this tuning, in place of an earlier one."""
    rest = re.sub(rf"^{HEADING}\n.*?(?=^## |\Z)", "", card, flags=re.MULTILINE | re.DOTALL).rstrip()
    return f"{rest}\n\n{section(report)}"


def section(report: TuneReport) -> str:
    """Accuracy and reliability by temperature and head, and the best static tree."""
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
    rows, tokens = report.static["rows"], report.static["tokens_per_step"]
    lines += [
        "",
        f"Best static tree of {rows} rows ({tokens:.2f} tokens per step on the texts that chose it):"
        f" `{report.medusa_choices}`.",
    ]
    return "\n".join(lines) + "\n"
