from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.generation.packaged import packaged_heads
from medusa_decoding.heads import from_pretrained
from medusa_decoding.heads.config import CalibrationFit
from medusa_decoding.heads.formats import v2
from medusa_decoding.training.tune_config import TuneConfig
from medusa_decoding.training.tune_report import TuneReport
from medusa_decoding.training.tuned_heads import folder_of, target_of, write_tuned
from tests.hub.stand_in import StandIn
from tests.tiny import tiny_heads

REPORT = TuneReport(
    "/nowhere/model", "h", "cpu", {}, [[0]], {"rows": 2, "tokens_per_step": 1.0}, [], Path("here")
)
FIT = CalibrationFit(temperature=0.0, slopes=[1.0, 2.0], misses=[0.0, -1.0])


def with_heads(name: str | Path) -> Medusa:
    """What is looked at of a model whose heads are called so."""
    return cast(Medusa, SimpleNamespace(heads_name=str(name)))


def settings(**fields: Any) -> TuneConfig:
    return TuneConfig.of(model="m", data=Path("answers.jsonl"), **fields)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tiny_heads(tmp_path / "own")


def write(own: Path, **fields: Any) -> Path:
    """Tune the heads in a folder; returns the folder they went to."""
    target = target_of(settings(**fields), with_heads(own))
    assert target is not None
    config = from_pretrained(own).config.model_copy(update={"path_calibration": [FIT]})
    write_tuned(target, config, REPORT)
    return target.folder


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = from_pretrained(one).state_dict(), from_pretrained(other).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_heads_are_tuned_in_their_folder_or_a_copy(own: Path, tmp_path: Path) -> None:
    (own / "README.md").write_text("# Heads\n")
    untouched = Path(shutil.copytree(own, tmp_path / "untouched"))
    copy = write(own, out=tmp_path / "copy")
    assert from_pretrained(own).config.path_calibration is None
    assert "## Tuning" not in (own / "README.md").read_text()
    assert write(own) == write(own, out=tmp_path / "copy" / ".." / "own") == own
    for folder in (own, copy):
        assert from_pretrained(folder).config.path_calibration == [FIT]
        assert_same_weights(folder, untouched)
        assert "## Tuning" in (folder / "README.md").read_text()
        record = json.loads((folder / "tuning.json").read_text())
        assert record["medusa_choices"] == [[0]] and "written" not in record


def test_other_heads_are_not_overwritten(own: Path, tmp_path: Path) -> None:
    other = tiny_heads(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match="holds heads already: give a new folder"):
        target_of(settings(out=other), with_heads(own))


def test_a_foreign_layout_needs_a_copy(own: Path, tmp_path: Path) -> None:
    heads = from_pretrained(own)
    heads.config = heads.config.model_copy(update={"base_model": "m"})
    foreign = tmp_path / "foreign"
    v2.save(heads, foreign)
    with pytest.raises(UserError, match="a layout without a place for a calibration: give a folder"):
        target_of(settings(), with_heads(foreign))
    copy = write(foreign, out=tmp_path / "copy")
    assert from_pretrained(copy).config.path_calibration == [FIT]
    assert_same_weights(copy, foreign)


def test_packaged_heads_stay_as_they_are(tmp_path: Path) -> None:
    medusa = with_heads("packaged:smollm2")
    assert folder_of(medusa) == packaged_heads()["smollm2"]
    assert target_of(settings(), medusa) is None
    target = target_of(settings(out=tmp_path / "copy"), medusa)
    assert target is not None and target.is_copy


def test_heads_of_the_hub_need_a_copy(own: Path, tmp_path: Path, hub: StandIn) -> None:
    record = {"README.md": b"# Heads\n", "training.json": b"{}"}
    hub.add("someone/heads", {**{path.name: path.read_bytes() for path in own.iterdir()}, **record})
    medusa = with_heads("someone/heads")
    with pytest.raises(UserError, match="someone/heads are on the Hub: give a folder for a calibrated copy"):
        target_of(settings(), medusa)
    target = target_of(settings(out=tmp_path / "copy"), medusa)
    assert target is not None
    write_tuned(target, from_pretrained(own).config, REPORT)
    assert_same_weights(tmp_path / "copy", own)
    assert (tmp_path / "copy" / "training.json").read_bytes() == b"{}"
