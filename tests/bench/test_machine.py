from __future__ import annotations

import json
import platform
from datetime import datetime
from pathlib import Path

import torch

from medusa_decoding.bench.machine import describe_machine, processor_name


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Fast: Chip 9\nprocessor\t: 1\nmodel name\t: Fast: Chip 9\n"
    )
    assert processor_name(cpuinfo) == "Fast: Chip 9"


def test_a_system_that_tells_no_name_gives_the_architecture(tmp_path: Path) -> None:
    assert processor_name(tmp_path / "none") in (platform.processor(), platform.machine())


def test_the_description_is_json_and_says_what_figures_depend_on() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert machine["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cores"] >= 1
    assert machine["memory_gb"] is None or machine["memory_gb"] > 0
    assert datetime.fromisoformat(machine["date"]).tzinfo is not None
