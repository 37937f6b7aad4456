from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.serving.stand_in import Token, medusa_reply, one_by_one, serving

LINES = [
    {"question_id": 1, "category": "qa", "turns": ["Hi", "Why"]},
    {"question_id": 2, "category": "qa", "turns": ["Yes"]},
    {"question_id": 3, "category": "code", "turns": ["x = 1"]},
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_a_report_is_written_and_a_table_shown(
    medusa: Command, model: Path, heads: Path, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "report.json"
    flags = ("--heads", heads, "--limit", 2, "--max-tokens", 6, "--dtype", "float64", "--json", out)
    ended = medusa("bench", model, "--suite", suite, *flags)
    assert ended.status == 0
    report = json.loads(out.read_text())
    assert list(report["categories"]) == ["qa", "code"]
    assert report["suite"]["turns"] == 3
    variants = report["variants"]
    assert variants["autoregressive"]["tokens"] == variants["medusa"]["tokens"] > 0
    assert variants["medusa"]["identical"] == {"texts": 3, "of": 3, "fraction": 1.0}
    assert variants["autoregressive"]["steps"] == variants["autoregressive"]["tokens"]
    assert (report["settings"]["limit"], report["settings"]["draft"]) == (2, "both")
    assert report["drafting"] == f"{heads} and prompt lookup"
    assert report["heads"]["name"] == str(heads)
    assert "speedup" in ended.output
    assert ended.error == f"report: {out}\n"


def test_the_report_may_go_to_stdout(medusa: Command, model: Path, heads: Path, suite: Path) -> None:
    flags = ("--heads", heads, "--limit", 1, "--max-tokens", 3, "--json", "-")
    ended = medusa("bench", model, "--suite", suite, *flags)
    assert json.loads(ended.output)["suite"]["questions"] == 1
    assert "speedup" in ended.error


def test_lookup_is_measured_without_heads(medusa: Command, model: Path, suite: Path) -> None:
    flags = ("--draft", "lookup", "--tree", 6, "--max-tokens", 30, "--dtype", "float64", "--json", "-")
    report = json.loads(medusa("bench", model, "--suite", suite, *flags).output)
    assert (report["heads"], report["settings"]["draft"]) == (None, "lookup")
    found = report["variants"]["medusa"]
    assert found["identical"]["fraction"] == 1.0
    assert found["tokens_from"]["heads"] == 0 < found["tokens_from"]["lookup"]
    assert sum(found["tokens_from"].values()) == found["tokens"]
    by_category = [one["tokens_from"]["lookup"] for one in report["categories"].values()]
    assert sum(by_category) == found["tokens_from"]["lookup"]


@pytest.mark.parametrize("out", [".", "/proc/report.json"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(
    medusa: Command, suite: Path, out: str
) -> None:
    ended = medusa("bench", "no such model", "--suite", suite, "--json", out)
    assert ended.status == 2
    assert f"cannot be written to {out}" in ended.error


def test_a_server_is_measured(medusa: Command, suite: Path, tmp_path: Path) -> None:
    steps: list[list[Token]] = [[("a", 0)], [(" b", 1), (" c", 0)]]

    def reply(body: dict[str, object]) -> list[dict[str, object]]:
        return medusa_reply(one_by_one(steps) if body["speculative"] == "off" else steps)

    out = tmp_path / "report.json"
    with serving(reply) as server:
        flags = ("--suite", suite, "--concurrency", "1,2", "--max-tokens", 5, "--json", out)
        ended = medusa("bench", "--server", server.url, *flags)
        assert server.requests[-1]["max_tokens"] == 5
    assert (ended.status, ended.error) == (0, f"report: {out}\n")
    report = json.loads(out.read_text())
    assert [one["concurrency"] for one in report["runs"]] == [1, 2]
    assert report["model"] == "tiny"
    lines = [line.split() for line in ended.output.splitlines()]
    assert ["load", "guesses", "tokens/s", "TTFT", "TPOT", "per", "step", "ratio", "same"] in lines
    (first, second) = (line for line in lines if line[:1] == ["medusa"])
    assert (first[-1], first[-3], second[-1]) == ("4/4", "2.00", "4/4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a MODEL or a --server"),
        (("smollm2", "--rate", 2), "--rate is how a server is put under load"),
        (("--server", "http://localhost:1", "--heads", "x"), "--heads is the server's own"),
        (("--server", "http://localhost:1", "--load-in-4bit"), "--load-in-4bit is the server's own"),
        (("--server", "localhost"), "'server' cannot be 'localhost'"),
        (("--server", "http://localhost:1", "--rate", 1, "--concurrency", 2), "give one"),
        (("--server", "http://127.0.0.1:9"), "or give MODEL"),
    ],
)
def test_flags_that_do_not_go_together(
    medusa: Command, suite: Path, arguments: tuple[object, ...], message: str
) -> None:
    ended = medusa("bench", *arguments, "--suite", suite)
    assert ended.status == 2
    assert message in ended.error
    assert ended.error.count("\n") == 1
