"""A clock that only made-up engines move."""

from __future__ import annotations

import pytest

from tests.tuning.clocked import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What `time.perf_counter` shows."""
    made = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: made.now)
    return made
