from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medusa_decoding.decoding import AdaptivePlanner, StepCost
from medusa_decoding.tuning import Key, Profile, automatic_planner, key_of, load_profile, save_profile
from medusa_decoding.tuning.cache import profiles_folder
from tests.tuning.clocked import Clock, ClockedDrafter, ClockedEngine

KEY = Key("fingerprint", "cpu-int8", 2, "a processor", "smollm2", "0.1")
FOUND = Profile(StepCost((1, 2), {256: (5.0, 5.5)}, {1: 0.25}), True, 10, 2.5, 0.0, False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path))
    return tmp_path / "profiles"


def test_a_profile_is_found_again(folder: Path) -> None:
    assert load_profile(KEY) is None
    path = save_profile(KEY, FOUND)
    assert [path] == list(folder.iterdir())
    assert load_profile(KEY) == FOUND
    save_profile(KEY, replace(FOUND, quick=True))
    assert load_profile(KEY) == replace(FOUND, quick=True)


@pytest.mark.parametrize("name", ["model", "engine", "threads", "processor", "heads", "version"])
def test_anything_else_than_the_same_has_its_own(name: str) -> None:
    save_profile(KEY, FOUND)
    assert load_profile(replace(KEY, **{name: 3 if name == "threads" else "other"})) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"key": {}}', '{"profile": {}, "key": {}}', "\xff"]
)
def test_a_damaged_file_is_no_profile(content: str) -> None:
    save_profile(KEY, FOUND).write_text(content, encoding="latin-1")
    assert load_profile(KEY) is None


def test_a_file_under_a_wrong_name_is_no_profile() -> None:
    other = replace(KEY, model="other")
    save_profile(KEY, FOUND).rename(other.path)
    assert load_profile(other) is None


def test_the_users_cache_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDUSA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert profiles_folder() == Path("/somewhere/medusa-decoding/profiles")


def test_the_key_names_what_decides_the_speed(clock: Clock) -> None:
    key = key_of(ClockedEngine(clock), model="abc", heads=None)
    assert (key.model, key.engine, key.threads, key.heads) == ("abc", "made-up", 2, "")
    assert key.processor
    assert key.version


def test_the_automatic_planner_measures_once(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    first = automatic_planner(engine, ClockedDrafter(engine), model="m", heads="h")
    measured = engine.passes
    again = automatic_planner(engine, ClockedDrafter(engine), model="m", heads="h")
    assert measured == engine.passes > 0
    assert first.cost == again.cost
    assert isinstance(again, AdaptivePlanner)
    automatic_planner(engine, ClockedDrafter(engine), model="m", heads="others")
    assert engine.passes > measured


def test_the_automatic_planner_prefers_what_was_measured_well(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    save_profile(key_of(engine, model="m", heads="h"), FOUND)
    assert automatic_planner(engine, ClockedDrafter(engine), model="m", heads="h").cost == FOUND.cost
    assert engine.passes == 0


def test_a_quick_look_at_a_busy_machine_is_not_kept(clock: Clock, folder: Path) -> None:
    clock.waiting = 0.5
    engine = ClockedEngine(clock)
    planner = automatic_planner(engine, ClockedDrafter(engine), model="m", heads="h")
    assert planner.cost.step(1, 256) > 5
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_only_costs_time(clock: Clock, folder: Path) -> None:
    folder.write_text("no folder")
    engine = ClockedEngine(clock)
    planner = automatic_planner(engine, ClockedDrafter(engine), model="m", heads="h")
    assert planner.cost.step(1, 256) == pytest.approx(5.61)


def test_the_automatic_planner_is_spared_the_noise(clock: Clock) -> None:
    engine = ClockedEngine(clock)
    noisy = replace(FOUND, measured=StepCost((1, 2), {256: (6.0, 5.0)}, {1: 0.25}))
    save_profile(key_of(engine, model="m", heads="h"), noisy)
    planner = automatic_planner(engine, ClockedDrafter(engine), model="m", heads="h")
    assert planner.cost.steps([1, 2], 256).tolist() == [5.5, 5.5]
