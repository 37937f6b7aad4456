from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from medusa_decoding.tuning import Effort, measure
from tests.cli.conftest import Command

SHORT = Effort((1, 2, 5), (16, 64, 1000), rounds=2, seconds=60.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where profiles are kept; and little is measured."""
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "__defaults__", (None, SHORT, None))
    monkeypatch.setattr("medusa_decoding.tuning.profile.MOST_WAITING", 1e9)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "profiles"


def test_a_table_is_shown_and_the_figures_are_kept(
    medusa: Command, model: Path, heads: Path, folder: Path
) -> None:
    ended = medusa("profile", model, "--heads", heads, "--dtype", "float32")
    assert ended.status == 0
    rows = [line.split("│")[1:-1] for line in ended.output.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["1", "2", "5"]
    assert rows[0][4].strip() == "1.00"
    for said in ("16 tokens", "64 tokens", "drafting: ", "torch-float32-cpu", f"{model}", "cores"):
        assert said in ended.output
    [kept] = folder.iterdir()
    assert ended.error == f"kept for --tree auto: {kept}\n"
    key = json.loads(kept.read_text())["key"]
    assert (key["engine"], key["heads"]) == ("torch-float32-cpu", str(heads))


def test_json_has_the_figures(medusa: Command, model: Path, heads: Path) -> None:
    found = json.loads(medusa("profile", model, "--heads", heads, "--json", "--dtype", "float32").output)
    assert found["rows"] == [1, 2, 5]
    assert list(found["contexts"]) == ["16", "64", "251"]
    assert found["milliseconds"] == found["contexts"]["16"]
    assert len(found["contexts"]["64"]) == 3
    assert found["draft_milliseconds"] > 0
    assert found["weight_bytes"] > 10_000
    assert found["read_bandwidth_gb_s"] is found["bandwidth_bound_ms"] is None
    assert (found["model"], found["engine"], found["heads"]) == (str(model), "torch-float32-cpu", str(heads))
    assert set(found["machine"]) == {"cpu", "cores", "os"}


def test_a_model_without_heads_has_a_profile_too(medusa: Command, model: Path) -> None:
    found = json.loads(medusa("profile", model, "--json").output)
    assert found["draft_milliseconds"] is found["heads"] is None
    shown = medusa("profile", model)
    assert shown.status == 0
    assert "drafting" not in shown.output


def test_figures_that_cannot_be_kept_are_shown(medusa: Command, model: Path, folder: Path) -> None:
    folder.write_text("no folder")
    ended = medusa("profile", model)
    assert ended.status == 0
    assert "milliseconds of a pass" in ended.output
    assert ended.error.startswith("not kept for --tree auto: ")
    assert ended.error.count("\n") == 1


def test_wrong_heads_are_one_line(medusa: Command, model: Path, tmp_path: Path) -> None:
    ended = medusa("profile", model, "--heads", tmp_path / "none")
    assert (ended.status, ended.output, ended.error.count("\n")) == (2, "", 1)


def test_a_busy_machine_is_told(medusa: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medusa_decoding.tuning.profile.MOST_WAITING", -1)
    assert "the machine was busy" in medusa("profile", model).error
    monkeypatch.setattr("medusa_decoding.tuning.profile.MOST_WAITING", 1e9)
    assert "was busy" not in medusa("profile", model).error


def test_figures_of_a_busy_machine_do_not_replace_better_ones(
    medusa: Command, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(share: float) -> str:
        clock = iter(range(0, 10**9, 10**6))
        monkeypatch.setattr(sys.modules[measure.__module__], "waited_seconds", lambda: share * next(clock))
        return medusa("profile", model, "--json").error

    monkeypatch.setattr("medusa_decoding.tuning.profile.MOST_WAITING", 0.2)
    assert "\nkept for --tree auto" in waiting(1.0)
    assert waiting(0.0).startswith("kept for --tree auto")
    [kept] = folder.iterdir()
    before = kept.read_text()
    assert "not kept for --tree auto: the figures from before are better" in waiting(1.0)
    assert kept.read_text() == before
