from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from medusa_decoding.bench.peers.result import AgainstResult
from tests.bench.peers.conftest import fake_llama, tiny_gguf
from tests.cli.conftest import Command
from tests.serving.stand_in import plain_reply, serving

__all__ = ["fake_llama", "tiny_gguf"]

LINES = [
    {"question_id": 1, "category": "qa", "turns": ["Hi", "Why"]},
    {"question_id": 2, "category": "code", "turns": ["x = 1"]},
    {"question_id": 3, "category": "code", "turns": ["long" * 60]},
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_sides_are_raced_and_the_missing_are_told(
    medusa: Command, model: Path, heads: Path, suite: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "result.json", tmp_path / "result.md"
    peers = "autoregressive,lookup,transformers,transformers-prompt-lookup,llama.cpp"
    flags = ("--heads", heads, "--dtype", "float64", "--max-tokens", 12, "--peer-limit", 1)
    with serving(lambda _: plain_reply(["a", " b", " c"])) as server:
        against = f"{peers},server:{server.url}"
        ended = medusa(
            "bench", model, "--suite", suite, *flags, "--against", against, "--json", out, "--markdown", page
        )
    assert ended.status == 0, ended.error
    result = AgainstResult.model_validate_json(out.read_text())
    names = [side.name for side in result.sides]
    assert names == ["medusa", *peers.split(",")[:-1], f"server:{server.url}"]
    assert [side.tokens_per_second.prompts for side in result.sides] == [2, 2, 2, 1, 1, 2]
    assert [side.identical for side in result.sides] == [2, 2, 2, 1, 1, None]
    assert [one.peer for one in result.skipped] == ["llama.cpp"]
    assert [one.question_id for one in result.skipped_prompts] == [3]
    own, exact = result.side("medusa").perplexity, result.side("transformers").perplexity
    assert own is not None and exact == pytest.approx(own, rel=1e-4)
    assert result.side("medusa").weights == "fp64" and result.side("transformers").weights == "fp32"
    assert "llama.cpp was skipped" in ended.error and "llama.cpp was skipped" in page.read_text()
    assert "medusa is" in ended.output


def test_the_cpu_engines_weights_and_threads_are_named(medusa: Command, model: Path, suite: Path) -> None:
    flags = ("--engine", "cpu", "--threads", 1, "--draft", "lookup", "--tree", 6, "--max-tokens", 8)
    ended = medusa("bench", model, "--suite", suite, *flags, "--against", "autoregressive", "--json", "-")
    assert ended.status == 0, ended.error
    result = AgainstResult.model_validate_json(ended.output)
    assert (result.threads, result.drafting) == (1, "prompt lookup")
    assert [(side.weights, side.identical) for side in result.sides] == [("int8", 2), ("int8", 2)]
    assert "cpu" in result.sides[1].description and "no guesses" in result.sides[1].description


def test_llama_cpp_runs_in_another_python(
    medusa: Command, tiny_gguf: Path, fake_llama: Path, suite: Path
) -> None:
    flags = ("--engine", "torch", "--draft", "lookup", "--max-tokens", 6, "--llama-python", sys.executable)
    peers = ("--against", "llama.cpp,llama.cpp-lookup", "--json", "-", "--llama-no-repack")
    ended = medusa("bench", tiny_gguf, "--suite", suite, *flags, *peers)
    assert ended.status == 0, ended.error
    result = AgainstResult.model_validate_json(ended.output)
    assert result.skipped == []
    assert [side.name for side in result.sides[1:]] == [
        "llama.cpp", "llama.cpp Q8_0", "llama.cpp Q4_0", "llama.cpp-lookup", "llama.cpp-lookup server",
    ]  # fmt: skip
    assert [side.weights for side in result.sides[1:]] == ["Q4_1", "Q8_0", "Q4_0", "Q4_1", "Q4_1"]
    assert all("without repacked weights" in side.description for side in result.sides[1:])
    assert all(side.perplexity is not None and side.ratio is not None for side in result.sides[1:])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--against", "ollama"), "unknown peer 'ollama'"),
        (("--against", "lookup", "--temperature", 1), "leave out --temperature"),
        (("--against", "lookup", "--acceptance", "typical"), "leave out --acceptance"),
        (("--against", "lookup", "--adapter", "x"), "leave out --adapter"),
        (("--against", "lookup", "--server", "http://localhost:1"), "--against server:URL"),
        (("--against", "lookup", "--draft", "none"), "nothing guesses"),
        (("--against", "lookup", "--max-tokens", 250), "no prompt of the suite can be used"),
        (("--against", "lookup", "--text", "/no/text"), "cannot read the text /no/text"),
        (("--against", "lookup", "--markdown", "."), "cannot be written to ."),
        (("--markdown", "x.md"), "--markdown is for --against"),
        (("--llama-no-repack",), "--llama-no-repack is for --against"),
    ],
)
def test_mistakes_are_told_in_one_line(
    medusa: Command, model: Path, suite: Path, flags: tuple[object, ...], message: str
) -> None:
    ended = medusa("bench", model, "--suite", suite, *flags)
    assert ended.status == 2
    assert message in ended.error
    assert ended.error.splitlines()[-1].startswith("medusa: ")
