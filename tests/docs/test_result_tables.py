from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tools import result_tables

ROOT = Path(__file__).parent.parent.parent


def test_tables_say_what_the_files_say() -> None:
    command = [sys.executable, "tools/result_tables.py", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", result_tables.TABLES)
def test_every_table_stands_somewhere(name: str) -> None:
    assert any(f"<!-- table: {name} -->" in path.read_text() for path in result_tables.pages())


def test_a_stale_table_is_replaced_and_nothing_else() -> None:
    table = result_tables.server()
    before = "a\n<!-- table: server -->\nold\n<!-- /table -->\nb\n"
    assert result_tables.written_anew(before) == f"a\n<!-- table: server -->\n{table}<!-- /table -->\nb\n"
    assert "| 1 |" in table and "27 of 27" in table
