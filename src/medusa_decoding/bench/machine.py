"""The machine that a measurement was made on: figures mean nothing without it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe_machine(device: str = "cpu") -> dict[str, str | int | float | None]:
    """What the `machine` part of a report says: `describe_host`, and what torch has of it.

    threads: those torch uses.
    """
    import torch

    return {
        **describe_host(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def describe_host() -> dict[str, str | int | float | None]:
    """The machine itself. cores: those this process may use; memory_gb: in 10^9 bytes."""
    return {
        "cpu": processor_name(),
        "cores": usable_cores(),
        "memory_gb": memory_gb(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "medusa_decoding": version("medusa-decoding"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system tells it; its architecture where the system tells no name."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float | None:
    """The machine's memory in 10^9 bytes; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
