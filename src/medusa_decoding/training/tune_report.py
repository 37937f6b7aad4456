"""What `tune` finds out about heads: the content of `tuning.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medusa_decoding.decoding.calibration import Fit
from medusa_decoding.errors import UserError
from medusa_decoding.heads import HeadsConfig
from medusa_decoding.tuning.guesses import Guesses
from medusa_decoding.tuning.reliability import (
    apply,
    calibration_errors,
    cross_calibrated,
    fit,
    tokens_per_step,
)

TUNING_FILE = "tuning.json"
TOP = (1, 3, 5, 10)
ROWS = (4, 8, 16)
_BY_NUMBER = ("top", "trees_before", "trees_after")


@dataclass(frozen=True)
class Measurement:
    """Heads on texts drawn at one temperature.

    top: k → (K) how often the right token is among the head's k likeliest.
    on_path: (K) places where all heads before were right at their first choice. There: right, (K) how often
    the head's first choice was right; error_before and error_after, (K) expected calibration error with the
    heads as they were and with the fit, each text's by a fit on other texts.
    trees_before, trees_after: rows → tokens per step of best-first trees of so many rows, by the
    probabilities and in truth.
    slopes, misses: (K) the fit on all texts (see `decoding.calibration`).
    """

    temperature: float
    texts: int
    places: int
    top: dict[int, list[float]]
    on_path: list[int]
    right: list[float]
    error_before: list[float]
    error_after: list[float]
    trees_before: dict[int, tuple[float, float]]
    trees_after: dict[int, tuple[float, float]]
    slopes: list[float]
    misses: list[float]

    @property
    def fit(self) -> Fit:
        """As the drafter takes it."""
        return Fit(self.temperature, tuple(self.slopes), tuple(self.misses))


@dataclass(frozen=True)
class TuneReport:
    """What `tune` found.

    medusa_choices: the best static tree at the lowest temperature. static: its rows and its tokens per step,
    on the texts that chose it and for texts that did not. written: the folder, None where none was.
    """

    model: str
    heads: str
    engine: str
    source: dict[str, Any]
    medusa_choices: list[list[int]]
    static: dict[str, Any]
    measured: list[Measurement]
    written: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    def record(self) -> dict[str, Any]:
        """The content of `tuning.json`, in which paths of this machine are cut to their ends."""
        content = self.as_dict()
        del content["written"]
        for name in ("model", "heads"):
            path = Path(content[name]).expanduser()
            content[name] = path.resolve().name if path.exists() else content[name]
        return content


def measure(raw: Guesses, heads: HeadsConfig, temperature: float) -> Measurement:
    """Fit a calibration to guesses in texts drawn at `temperature`, and judge it.

    raw: with the probabilities that the heads give before `path_calibration`.
    """
    fitted = fit(raw, temperature)
    before = raw if heads.path_calibration is None else apply(heads.fit_at(temperature), raw)
    after = cross_calibrated(raw, temperature)
    on_path = raw.on_path()
    counts = on_path.sum(0)
    return Measurement(
        temperature=temperature,
        texts=len(set(raw.texts.tolist())),
        places=len(raw),
        top={k: raw.accuracy(k).tolist() for k in TOP},
        on_path=counts.tolist(),
        right=(((raw.ranks == 0) & on_path).sum(0) / counts.clip(1)).tolist(),
        error_before=calibration_errors(before),
        error_after=calibration_errors(after),
        trees_before=dict(zip(ROWS, tokens_per_step(before, ROWS), strict=True)),
        trees_after=dict(zip(ROWS, tokens_per_step(after, ROWS), strict=True)),
        slopes=list(fitted.slopes),
        misses=list(fitted.misses),
    )


def load_tuning(folder: Path) -> TuneReport | None:
    """What `tune` wrote beside heads; None if there is nothing. Raises UserError if it cannot be read."""
    path = folder / TUNING_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measured = [_measurement(one) for one in content.pop("measured")]
        return TuneReport(**content, measured=measured)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no record of a tuning: run `medusa tune` again, or delete it") from error


def _measurement(content: dict[str, Any]) -> Measurement:
    """JSON knows only texts as keys."""
    by_number = {name: {int(key): one for key, one in content[name].items()} for name in _BY_NUMBER}
    return Measurement(**{**content, **by_number})
