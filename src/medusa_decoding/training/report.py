"""The record of a training run, `training.json`, and the model card made from it."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.training.card import Origin, framed, loadable, shape_of
from medusa_decoding.training.joint.card import change_of, use_of

RECORD_FILE = "training.json"
# Of the note beside distilled answers, what the card says.
_DISTILLATION = ("model", "max_tokens", "temperature", "top_p", "seed", "max_prompt_tokens")


@dataclass
class TrainingReport:
    """What a run was and what came of it; the content of `training.json`.

    recipe: the settings that decide the heads. settings: all settings of the last run. data: paths and
    checksums of its sources and how they were written, numbers of texts and positions, size and coverage of
    the draft vocabulary, and how often the base model itself agrees with the answers. history: loss and
    held-out figures after each epoch; kept_epoch: the one whose heads these are (None: the last).
    calibration: per head. compute_dtype: of the heads' products. joint: of Medusa-2, what it did to the base
    model and what the heads could do before it. finished: false while the run goes on.
    """

    recipe: dict[str, Any]
    data: dict[str, Any]
    base: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    history: list[dict[str, Any]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)
    joint: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    positions_per_second: float = 0.0
    kept_epoch: int | None = None
    compute_dtype: str = "float32"
    settings: dict[str, Any] = field(default_factory=dict)
    finished: bool = False

    @property
    def accuracies(self) -> dict[str, Any]:
        """The figures after the epoch whose heads these are; empty before the first epoch's end."""
        return self.history[(self.kept_epoch or 0) - 1] if self.history else {}

    def summary(self) -> str:
        """The heads' held-out figures in one line; empty where nothing was held out."""
        figures = self.accuracies
        if "top1" not in figures:
            return ""
        shares = ", ".join(f"{share:.3f}" for share in figures["top1"])
        chain = f"{figures['tokens_per_step']:.2f} tokens per step as a greedy chain"
        return f"held-out top-1 of each head: {shares}; {chain}"


def save_report(folder: Path, report: TrainingReport) -> None:
    """Write `training.json`."""
    with atomic_write(folder / RECORD_FILE) as temporary:
        temporary.write_text(as_json(report), encoding="utf-8")


def as_json(report: TrainingReport) -> str:
    """The report as indented JSON."""
    return json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"


def load_report(folder: Path) -> TrainingReport | None:
    """The folder's record, None if there is none; raises UserError if it cannot be read as one."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return TrainingReport(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no record of a training; give another out folder") from error


def machine() -> dict[str, Any]:
    """Where this runs."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": name,
    }


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    import torch
    import transformers

    from medusa_decoding import __version__

    return {
        "medusa-decoding": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def coverage_line(report: TrainingReport) -> str:
    """What the draft vocabulary holds, in one line."""
    data = report.data
    size = data.get("draft_vocabulary", report.recipe["draft_vocabulary"])
    held_out = (
        f"{data['validation_coverage']:.1%} of the held-out tokens, " if data["validation_texts"] else ""
    )
    return f"draft vocabulary of {size} tokens: {held_out}{data['coverage']:.1%} of the training tokens"


def origin_of(report: TrainingReport) -> Origin:
    """What the Hub can be told of the heads by their record alone."""
    return Origin.of(report.base.get("original", report.base["model"]))


def model_card(report: TrainingReport, origin: Origin | None = None) -> str:
    """The README.md of the heads: what they are, recipe, figures; every number is from the report.

    origin: what the Hub is told; without it, what the report tells.
    """
    recipe, data, base = report.recipe, report.data, report.base
    origin = origin or origin_of(report)
    lines = [
        f"# Medusa heads for {base['model']}",
        "",
        f"{shape_of(recipe)} that guess the next tokens of"
        f" {base['model']} (fingerprint `{base['fingerprint']}`). The base model checks every guess, so the"
        " text is its own.",
        "",
        *use_of({**base, "model": loadable(base["model"], origin)}, origin.repo),
        "## Recipe",
        *_table([[name, f"`{recipe[name]}`"] for name in recipe if name != "model"], ["setting", "value"]),
        "",
        "## Data",
        f"{data['texts']} texts, {data['positions']} training positions; {data['validation_texts']} texts"
        f" with {data['validation_positions']} positions held out.{_agreement(data)}"
        f" {coverage_line(report).capitalize()}. SHA-256 of the data: `{data['sha256']}`.",
        "",
        *_sources(data),
        *change_of(recipe, report.joint, report.accuracies),
        *_figures(report),
        "## Run",
        *([f"The heads are those of epoch {report.kept_epoch}."] if report.kept_epoch else []),
        f"{report.steps} steps in {report.seconds / 60:.1f} minutes ({report.positions_per_second:.0f}"
        f" positions a second) on {report.machine['gpu'] or report.machine['processor']},"
        f" {_threads(report.machine)}, products in {report.compute_dtype};"
        f" {', '.join(f'{name} {version}' for name, version in report.versions.items())}.",
    ]
    return framed(lines, origin)


def _threads(machine: dict[str, Any]) -> str:
    processes = machine.get("processes", 1)
    return f"{machine['threads']} thread(s)" + (f" in each of {processes} processes" if processes > 1 else "")


def _sources(data: dict[str, Any]) -> list[str]:
    """Each source of the data, and how answers were distilled."""
    rows = []
    for source in data.get("sources", []):
        note = source.get("distillation", {})
        how = ", ".join(f"{name} {note[name]}" for name in _DISTILLATION if name in note)
        rows.append([source["path"], str(source["answers"]), how, f"`{source['sha256']}`"])
    return [*_table(rows, ["source", "answers", "distilled with", "SHA-256"]), ""] if rows else []


def _agreement(data: dict[str, Any]) -> str:
    if "base_agreement" not in data:
        return ""
    share = f"{data['base_agreement']:.1%}"
    return f" The base model's likeliest token is the answer's at {share} of the positions looked at."


def _figures(report: TrainingReport) -> list[str]:
    figures = report.accuracies
    if "top1" not in figures:
        return []
    rows = [
        [str(head + 1), *(f"{figures[top][head]:.3f}" for top in ("top1", "top3", "top5")),
         f"{one['accuracy']:.3f}", f"{one['confidence'][0]:.3f} → {one['confidence'][1]:.3f}",
         f"{one['error'][0]:.3f} → {one['error'][1]:.3f}"]
        for head, one in enumerate(report.calibration)
    ]  # fmt: skip
    header = ["head", "top-1", "top-3", "top-5", "right", "confidence", "calibration error"]
    return [
        "## Held-out figures",
        *_table(rows, header),
        "",
        "Top-k: how often the right token is among the head's k likeliest; a token outside the draft"
        " vocabulary is a miss. The last three columns are of positions where all heads before guessed"
        " right: how often the likeliest token was right, its mean probability and the expected calibration"
        " error, before → after calibration (by a fit on other positions).",
        "",
        "Acceleration rate of the greedy chain of all heads:"
        f" {figures['tokens_per_step']:.2f} tokens per step.",
        "",
    ]


def _table(rows: list[list[str]], header: list[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
