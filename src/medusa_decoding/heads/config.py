"""What a set of heads is: the content of `medusa_config.json`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medusa_decoding.decoding.calibration import CalibratedDrafter, Calibration, Fit
from medusa_decoding.decoding.protocols import Drafter
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write

CONFIG_FILE = "medusa_config.json"

Positive = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CalibrationFit(BaseModel):
    """How often guesses come true at one sampling temperature (0: greedy); see `decoding.calibration`.

    slopes, misses: one per head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    slopes: list[Temperature]
    misses: list[Annotated[float, Field(ge=-20, le=20)]]

    @classmethod
    def of(cls, fitted: Fit) -> CalibrationFit:
        """A fit as it is kept."""
        return cls(temperature=fitted.temperature, slopes=list(fitted.slopes), misses=list(fitted.misses))

    @property
    def fit(self) -> Fit:
        """As the drafter takes it."""
        return Fit(self.temperature, tuple(self.slopes), tuple(self.misses))


class HeadsConfig(BaseModel):
    """Shape and origin of K Medusa heads (Cai et al., section 2.1.1).

    `num_layers`: residual blocks per head. `vocabulary_size`: rows of the base model's lm_head; None when a
    checkpoint with a shared projection does not tell, until the heads are bound to a base model.
    `projection`: "shared" is the base model's lm_head, "own" one projection per head.
    `condition`: "root" lets the first block of each head see the root token's input embedding.
    `draft_vocabulary_size`: number of tokens the heads can propose (None: all).
    `calibration`: one temperature per head that divides its logits (None: 1.0 for all).
    `path_calibration`: what then becomes of the guesses' probabilities, by rising sampling temperature (None:
    they stay).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_heads: Positive
    num_layers: Annotated[int, Field(ge=0)]
    hidden_size: Positive
    vocabulary_size: Positive | None
    projection: Literal["shared", "own"] = "shared"
    condition: Literal["none", "root"] = "none"
    draft_vocabulary_size: Positive | None = None
    base_model: str | None = None
    base_fingerprint: str | None = None
    calibration: list[Temperature] | None = None
    path_calibration: Annotated[list[CalibrationFit], Field(min_length=1)] | None = None
    format_version: Literal[1] = 1

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if self.condition == "root" and self.num_layers == 0:
            raise ValueError('condition "root" needs num_layers of at least 1')
        if self.calibration is not None and len(self.calibration) != self.num_heads:
            raise ValueError(f"calibration has {len(self.calibration)} values for {self.num_heads} heads")
        self._check_path_calibration()
        if self.vocabulary_size is None:
            if self.projection == "own" or self.draft_vocabulary_size is not None:
                raise ValueError("vocabulary_size is needed for own projections and for a draft vocabulary")
        elif (self.draft_vocabulary_size or 0) > self.vocabulary_size:
            raise ValueError("draft_vocabulary_size is larger than vocabulary_size")
        return self

    def _check_path_calibration(self) -> None:
        fits = self.path_calibration or []
        for fit in fits:
            for values in (fit.slopes, fit.misses):
                if len(values) != self.num_heads:
                    raise ValueError(f"path_calibration has {len(values)} values for {self.num_heads} heads")
        if any(one.temperature >= other.temperature for one, other in pairwise(fits)):
            raise ValueError("the temperatures of path_calibration must rise")

    def calibrated(self, drafter: Drafter) -> Drafter:
        """The heads' drafter with its probabilities mapped as `path_calibration` says."""
        return drafter if self.path_calibration is None else CalibratedDrafter(drafter, self._calibration())

    def fit_at(self, temperature: float) -> Fit:
        """The map at a sampling temperature; there has to be a `path_calibration`."""
        return self._calibration().at(temperature)

    def _calibration(self) -> Calibration:
        return Calibration([one.fit for one in self.path_calibration or []])

    @property
    def projection_rows(self) -> int | None:
        """Rows of a projection: the draft vocabulary's size T, or the base model's V; None if unknown."""
        return self.draft_vocabulary_size or self.vocabulary_size

    def expected_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor name that heads of this config have (see `heads.state`), with its shape."""
        size = self.hidden_size
        for head in range(self.num_heads):
            for layer in range(self.num_layers):
                yield f"{head}.{layer}.linear.weight", (size, size)
                yield f"{head}.{layer}.linear.bias", (size,)
            if self.condition == "root":
                yield f"{head}.0.root.weight", (size, size)
            if self.projection == "own":
                assert self.projection_rows is not None
                yield f"{head}.{self.num_layers}.weight", (self.projection_rows, size)
        if self.draft_vocabulary_size is not None:
            yield "token_map", (self.draft_vocabulary_size,)


def check_fingerprint(config: HeadsConfig, fingerprint: str | None) -> None:
    """Warn in one line when the heads were trained on a base model with another fingerprint."""
    if config.base_fingerprint and fingerprint and config.base_fingerprint != fingerprint:
        warnings.warn(
            "The heads were trained on other weights than this base model's"
            f" ({config.base_model or config.base_fingerprint}): the text stays exact, but fewer of"
            " their guesses may be accepted.",
            stacklevel=2,
        )


def read_config(path: Path) -> HeadsConfig:
    """Read `medusa_config.json`; raises UserError naming the file and the first key that is wrong."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}. Check the folder of the heads.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch or save the heads again.") from error
    return make_config(fields, path)


def write_config(path: Path, config: HeadsConfig) -> None:
    """Write `medusa_config.json`, whole or not at all."""
    with atomic_write(path) as temporary:
        text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def make_config(fields: object, source: object) -> HeadsConfig:
    """Check `fields`, a dict; raises UserError naming `source` and the first key that is wrong."""
    try:
        return HeadsConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}': remove it, or upgrade medusa-decoding if a newer version wrote it."
    if fault["type"] == "missing":
        return f"the key '{key}' is missing: add it, or save the heads again."
    if key == "format_version":
        return f"format_version {fault['input']} is not known: upgrade medusa-decoding."
    return f"{fault['msg']}{f' (key {key!r})' if key else ''}: mend it, or save the heads again."
