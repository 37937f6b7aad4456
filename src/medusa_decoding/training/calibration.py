"""Calibrate heads at the end of their training, on positions they were not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from medusa_decoding.decoding.calibration import Fit
from medusa_decoding.heads import MedusaHeads
from medusa_decoding.heads.config import CalibrationFit, HeadsConfig
from medusa_decoding.heads.drafter import DEFAULT_TOP_K, top_tokens
from medusa_decoding.training.data import Positions
from medusa_decoding.training.evaluation import features_at
from medusa_decoding.training.loss import projection_of
from medusa_decoding.tuning.guesses import Guesses, ranks_of
from medusa_decoding.tuning.reliability import calibration_errors, cross_calibrated, fit

MOST_POSITIONS = 16_384
_BATCH = 128
_BLOCKS = 30


@dataclass(frozen=True)
class HeadCalibration:
    """One head where the heads before it guessed right; there its guess decides whether a path goes on.

    slope, miss: see `decoding.calibration`. rows: how many such positions there were. accuracy: how often the
    likeliest token was right. confidence: its mean probability, error: the expected calibration error, each
    before and after; after is by a fit on other positions.
    """

    slope: float
    miss: float
    rows: int
    accuracy: float
    confidence: list[float]
    error: list[float]


def calibrate(heads: MedusaHeads, positions: Positions) -> list[HeadCalibration]:
    """Fit each head's slope and miss to `positions`, at least one."""
    raw = guesses_at(heads, positions)
    fitted, after = fit(raw, 0.0), cross_calibrated(raw, 0.0)
    errors = zip(calibration_errors(raw), calibration_errors(after), strict=True)
    on_path = raw.on_path()
    found = []
    for head, (before, now) in enumerate(errors):
        there = on_path[:, head]
        found.append(
            HeadCalibration(
                slope=fitted.slopes[head],
                miss=fitted.misses[head],
                rows=int(there.sum()),
                accuracy=_mean(raw.ranks[there, head] == 0),
                confidence=[_mean(one.probabilities[there, head, 0]) for one in (raw, after)],
                error=[before, now],
            )
        )
    return found


def with_calibration(config: HeadsConfig, found: list[HeadCalibration], temperature: float) -> HeadsConfig:
    """The config with this calibration alone, for text drawn at `temperature`."""
    fitted = Fit(temperature, tuple(one.slope for one in found), tuple(one.miss for one in found))
    update = {"calibration": None, "path_calibration": [CalibrationFit.of(fitted)]}
    return config.model_copy(update=update)


@torch.inference_mode()
def guesses_at(heads: MedusaHeads, positions: Positions) -> Guesses:
    """What uncalibrated heads guess at up to MOST_POSITIONS positions, evenly spread: nothing to seed.

    Positions do not tell their texts; blocks of neighbours take their place.
    """
    stride = max(1, -(-len(positions) // MOST_POSITIONS))
    rows = torch.arange(0, len(positions), stride)
    tokens, probabilities = [], []
    for part in rows.split(_BATCH):
        features = features_at(heads, positions, part)
        by_head = []
        for head in range(features.shape[1]):
            logits = functional.linear(features[:, head], *projection_of(heads, head)).float()
            by_head.append(top_tokens(logits[:, None], min(DEFAULT_TOP_K, logits.shape[1]), None))
        tokens.append(np.concatenate([one for one, _ in by_head], axis=1))
        probabilities.append(np.concatenate([one for _, one in by_head], axis=1))
    ranks = ranks_of(np.concatenate(tokens), positions.labels[rows].numpy())
    return Guesses(np.concatenate(probabilities), ranks, np.arange(len(rows)) * _BLOCKS // len(rows))


def temperature_of(data: Sequence[Path]) -> float:
    """At which all answers were drawn; 0, which is greedy, where files differ or none says."""
    found = {_noted_temperature(path) for path in data}
    return found.pop() if len(found) == 1 else 0.0


def _noted_temperature(data: Path) -> float:
    """As `distill` noted it beside its answers."""
    note = data.with_name(data.name + ".config.json")
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    temperature = content.get("temperature", 0.0) if isinstance(content, dict) else 0.0
    return float(temperature) if isinstance(temperature, int | float) else 0.0


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
