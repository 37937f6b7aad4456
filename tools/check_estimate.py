"""Hold what `medusa train --dry-run` says against two short trainings on this machine, which should be idle.

    python tools/check_estimate.py MODEL ANSWERS [--texts N]

Trains heads alone and then model and heads (LoRA) on the first N answers, and prints positions per second and
memory, said and measured. Exits with status 1 if a figure is off by more than a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.dry_run import dry_run

TOLERANCE = 0.25
# Evaluation is no part of the speed that a dry run says.
COMMON: dict[str, Any] = {"draft_vocabulary": 8192, "batch_tokens": 512, "validation_fraction": 0.0}
RUNS: dict[str, dict[str, Any]] = {
    "heads alone": {"epochs": 1},
    "model and heads": {"method": "medusa2", "joint_epochs": 0.2},
}


def measured(config: TrainingConfig) -> tuple[float, float]:
    """Positions per second and peak memory in bytes of a training in a process of its own."""
    flags = [
        part
        for name, value in config.model_dump(
            mode="json", exclude_unset=True, exclude={"model", "data"}
        ).items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = [
        sys.executable,
        "-c",
        "from medusa_decoding.cli.main import main; main()",
        "train",
        config.model,
        *(part for path in config.data for part in ("--data", str(path))),
    ]
    with subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    record = json.loads((config.out / "training.json").read_text(encoding="utf-8"))
    return float(record["positions_per_second"]), usage.ru_maxrss * 1024.0


def main() -> int:
    """Print a table; 1 if the dry run is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("answers", type=Path)
    parser.add_argument("--texts", type=int, default=300)
    given = parser.parse_args()
    good = True
    print(f"{'run':<16} {'figure':<22} {'said':>10} {'measured':>10} {'said/measured':>14}")
    with tempfile.TemporaryDirectory() as folder:
        data, heads = Path(folder) / "answers.jsonl", Path(folder) / "heads alone"
        with given.answers.open(encoding="utf-8") as lines, data.open("w", encoding="utf-8") as out:
            out.writelines(line for _, line in zip(range(given.texts), lines, strict=False))
        for name, fields in RUNS.items():
            begin = {"initial_heads": heads} if fields.get("method") == "medusa2" else {}
            config = TrainingConfig.of(
                model=given.model, data=data, out=Path(folder) / name, **COMMON, **fields, **begin
            )
            said = dry_run(config).cost
            speed, memory = measured(config)
            for figure, one, other in (
                ("positions a second", said.positions_per_second, speed),
                ("memory, MB", (said.memory + said.host) / 1e6, memory / 1e6),
            ):
                good &= abs(one / other - 1) <= TOLERANCE
                print(f"{name:<16} {figure:<22} {one:>10.0f} {other:>10.0f} {one / other:>14.2f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
