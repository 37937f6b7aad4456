"""What the log says of faults: a line, and nothing of what was asked."""

from __future__ import annotations

import logging
import os

log = logging.getLogger("medusa.serving")


def note_fault(error: Exception) -> None:
    """One line in the log without what was asked; `MEDUSA_TRACEBACK=1` shows where it happened."""
    shown = error if os.environ.get("MEDUSA_TRACEBACK") else None
    log.error(
        "a fault of medusa itself: %s (MEDUSA_TRACEBACK=1 shows where)", type(error).__name__, exc_info=shown
    )
