"""Names of what decides a model's speed here: the processor, the engine, its threads."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from medusa_decoding.decoding import Engine


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


def waited_seconds(tasks: Path = Path("/proc/self/task")) -> float:
    """Seconds in which threads stood ready without a processor; 0 where the system does not tell."""
    total = 0.0
    for statistics in tasks.glob("*/schedstat"):
        # A thread may end while its file is read.
        with suppress(OSError, ValueError, IndexError):
            total += int(statistics.read_text().split()[1]) / 1e9
    return total


def describe_machine() -> dict[str, str | int]:
    """What figures mean nothing without."""
    return {"cpu": processor_name(), "cores": usable_cores(), "os": platform.platform()}


def describe_engine(engine: Engine) -> str:
    """The engine and what it holds weights in: its own `description`, or its class, type and device."""
    own = getattr(engine, "description", None)
    if isinstance(own, str):
        return own
    name = type(engine).__name__.removesuffix("Engine").lower()
    parts = [str(getattr(engine, part, "")).removeprefix("torch.") for part in ("dtype", "device")]
    return "-".join([name, *filter(None, parts), *filter(None, [_accelerator(engine)])])


def threads_of(engine: Engine) -> int:
    """How many threads run a pass."""
    own = getattr(engine, "threads", None)
    if isinstance(own, int):
        return own
    if _is_torch(engine):
        from torch import get_num_threads

        return get_num_threads()
    return usable_cores()


def weight_bytes_of(engine: Engine) -> int | None:
    """Bytes of weights that a pass reads; an input embedding of its own is not read but looked up."""
    own = getattr(engine, "weight_bytes", None)
    if own is not None:
        return int(own)
    if not _is_torch(engine):
        return None
    model: Any = engine.model  # type: ignore[attr-defined]
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
    is_read = head is not None and head.weight is embedding
    return sum(int(each.nbytes) for each in model.parameters() if is_read or each is not embedding)


def _is_torch(engine: Engine) -> bool:
    # By what it has: asking for its class would import torch where another engine runs without.
    return hasattr(engine, "device") and hasattr(engine, "model")


def _accelerator(engine: Engine) -> str:
    device = getattr(engine, "device", None)
    if device is None or getattr(device, "type", "") != "cuda":
        return ""
    from torch.cuda import get_device_name

    return get_device_name(device)
