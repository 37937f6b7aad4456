"""`medusa tune`: measure and calibrate heads, and find their best static tree."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_decoding.cli.fields import options_of
from medusa_decoding.cli.terminal import note
from medusa_decoding.training.tune_config import TuneConfig

if TYPE_CHECKING:
    from rich.table import Table

    from medusa_decoding.training.tune_report import Measurement, TuneReport

MOST_TOP = 5
"""Of the accuracies shown; the others are in the figures of --json."""

HELPS = {
    "model": "Alias (smollm2), .gguf file, folder or Hub id of the base model.",
    "heads": "Folder or Hub id of the heads; auto: those packaged for the model.",
    "prompts": "Prompts that the model answers now; none that the heads were trained on.",
    "data": "Answers written by 'medusa distill' instead; those held out in training, if it used them.",
    "out": "Folder for a calibrated copy of the heads; without it, their own folder.",
    "nodes": "Rows of the static tree, its root included.",
    "limit": "Prompts [default: 64], or answers of --data [default: all].",
    "max_tokens": "Most tokens of an answer.",
    "batch": "Prompts answered at once.",
    "seed": "Of the sampled answers.",
    "engine": "auto (the CPU engine where it can run the model), cpu or torch.",
    "weights": "How the CPU engine keeps the weights.",
    "threads": "Threads of the CPU engine.",
    "device": "auto, cpu, cuda or cuda:N.",
    "dtype": "auto, float64, float32, bfloat16 or float16.",
}


@options_of(TuneConfig, HELPS)
def tune(
    temperatures: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature",
            metavar="T",
            help="Temperature of answers to --prompts; may be repeated. [default: 0, 0.7 and 1]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    **fields: Any,
) -> None:
    """Measure heads on texts of their model, calibrate them, and find their best static tree.

    The calibration is written into the heads' folder; packaged heads stay as they are unless --out names a
    folder for a copy. The tree is printed as medusa_choices, which --tree and other engines take.
    """
    from medusa_decoding.training.tune import tune as run

    if temperatures:
        fields["temperatures"] = tuple(temperatures)
    report = run(TuneConfig.of(**fields), progress=True)
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        _show(report)
    if report.written is None:
        note("packaged heads stay as they are: give --out for a calibrated copy")
    else:
        note(f"calibration and figures written: {report.written}")


def _show(report: TuneReport) -> None:
    from rich.console import Console

    console = Console()
    for measured in report.measured:
        console.print(heads_table(measured))
        console.print(trees_table(measured))
    static, held_out = report.static, report.static["tokens_per_step_held_out"]
    also = "" if held_out is None else f" ({held_out:.2f} on texts that did not choose it)"
    print(f"best static tree of {static['rows']} rows: {static['tokens_per_step']:.2f} tokens per step{also}")
    print(f"medusa_choices: {json.dumps(report.medusa_choices, separators=(',', ':'))}")


def heads_table(measured: Measurement) -> Table:
    """Accuracy and reliability of each head at one temperature."""
    from rich.table import Table

    how = "greedy" if measured.temperature == 0 else f"temperature {measured.temperature:g}"
    shown = Table(title=f"{how}: {measured.texts} texts, {measured.places} places")
    tops = [k for k in measured.top if k <= MOST_TOP]
    for name in ("head", *(f"top-{k}" for k in tops), "on path", "right", "calibration error"):
        shown.add_column(name, justify="right", no_wrap=True)
    for head in range(len(measured.right)):
        shown.add_row(
            str(head + 1),
            *(f"{measured.top[k][head]:.3f}" for k in tops),
            str(measured.on_path[head]),
            f"{measured.right[head]:.3f}",
            f"{measured.error_before[head]:.3f} → {measured.error_after[head]:.3f}",
        )
    return shown


def trees_table(measured: Measurement) -> Table:
    """What the probabilities promise of best-first trees, before and after, and what these bring."""
    from rich.table import Table

    shown = Table(title="tokens per step of best-first trees")
    for name in ("rows", "promised", "true"):
        shown.add_column(name, justify="right", no_wrap=True)
    for rows, (promised, true) in measured.trees_after.items():
        before, true_before = measured.trees_before[rows]
        shown.add_row(str(rows), f"{before:.2f} → {promised:.2f}", f"{true_before:.2f} → {true:.2f}")
    return shown
