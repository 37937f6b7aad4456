"""A clock that only made-up engines move."""

from __future__ import annotations

import sys

import pytest

from medusa_decoding.tuning import measure
from tests.tuning.clocked import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What `time.perf_counter` shows."""
    made = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: made.now)
    measuring = sys.modules[measure.__module__]
    monkeypatch.setattr(measuring, "waited_seconds", lambda: made.waiting * made.now)
    return made
