from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.plots import made


def test_results_become_pictures_and_a_page(medusa: Command, tmp_path: Path) -> None:
    paths = [made.written(tmp_path, "run", made.bench()), made.written(tmp_path, "costs", made.profile())]
    ended = medusa("plot", *paths, "--out", tmp_path / "out", "--theme", "light", "--format", "svg")
    assert ended.status == 0
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["costs-cost-by-context-light.svg", "index.md", "run-by-category-light.svg"]
    assert "Speedup by category" in ended.output
    assert ended.error == f"2 pictures and their captions: {tmp_path / 'out' / 'index.md'}\n"
    shown = (tmp_path / "out" / "index.md").read_text()
    assert 'smollm2 with its heads and prompt lookup" src="run-by-category-light.svg">' in shown


def test_an_unknown_file_is_one_line_and_nothing_is_written(medusa: Command, tmp_path: Path) -> None:
    known, other = made.written(tmp_path, "run", made.bench()), made.written(tmp_path, "other", {"a": 1})
    ended = medusa("plot", known, other, "--out", tmp_path / "out")
    assert ended.status == 2
    assert ended.error.startswith(f"medusa: error: {other} is no result that can be drawn; these can: ")
    assert ended.error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_the_way_out_is_named(
    medusa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medusa_decoding.plots.write.find_spec", lambda name: None)
    ended = medusa("plot", made.written(tmp_path, "run", made.bench()), "--out", tmp_path / "out")
    assert ended.status == 2
    assert "pip install 'medusa-decoding[plot]'" in ended.error


def test_a_decode_is_recorded_and_drawn(medusa: Command, model: Path, heads: Path, tmp_path: Path) -> None:
    trace = tmp_path / "decode.json"
    flags = ("-p", "abab", "--heads", heads, "--tree", 4, "--dtype", "float64", "--max-tokens", 12, "--json")
    plain = json.loads(medusa("generate", model, *flags).output)
    found = json.loads(medusa("generate", model, *flags, "--trace", trace).output)
    assert found["tokens"] == plain["tokens"]
    recorded = json.loads(trace.read_text())
    assert [token for step in recorded["steps"] for token in step["tokens"]] == found["tokens"]
    steps = [step for step in recorded["steps"] if step["tree"] is not None]
    assert len(steps) == found["statistics"]["steps"]
    assert sum(len(step["tree"]["tokens"]) for step in steps) == found["statistics"]["nodes"]
    for step in steps:
        # The accepted nodes are the tokens that became text, before the base model's own.
        accepted = [step["tree"]["tokens"][node] for node in step["path"][1:]]
        assert accepted == step["tokens"][: len(accepted)]
        assert step["sources"][: len(accepted)] == [
            step["tree"]["sources"][node] for node in step["path"][1:]
        ]
        assert len(step["texts"]) == len(step["tokens"])
    assert (recorded["model"], recorded["text"]) == (str(model), found["text"])
    assert medusa("plot", trace, "--out", tmp_path / "out", "--format", "png").status == 0
    assert (tmp_path / "out" / "decode-draft-tree-dark.png").read_bytes()[:4] == b"\x89PNG"


def test_a_trace_that_cannot_be_written_is_known_before_anything_is_loaded(
    medusa: Command, tmp_path: Path
) -> None:
    ended = medusa("generate", tmp_path / "none", "-p", "a", "--trace", tmp_path)
    assert ended.status == 2
    assert "cannot be written" in ended.error


def test_matplotlib_is_not_imported_before_it_is_needed() -> None:
    import subprocess

    code = "import sys, medusa_decoding.cli.main; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
