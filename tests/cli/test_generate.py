from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.generation import load
from tests.cli.conftest import Command

COMMON = ("--dtype", "float64", "--max-tokens", "12")


def test_text_goes_to_stdout_and_one_line_of_statistics_to_stderr(medusa: Command, model: Path) -> None:
    ended = medusa("generate", model, "-p", "Hello", "--no-heads", *COMMON)
    text = load(str(model), dtype="float64").generate("Hello", max_tokens=12).text
    assert ended.status == 0
    assert ended.output.removesuffix("\n") == text.removesuffix("\n")
    assert ended.output.endswith("\n")
    assert ended.error.count("\n") == 1
    assert "1.00 tokens per step" in ended.error


def test_heads_change_nothing_but_the_steps(medusa: Command, model: Path, heads: Path) -> None:
    plain = medusa("generate", model, "-p", "Hello", "--no-heads", "--json", *COMMON)
    drafted = medusa("generate", model, "-p", "Hello", "--heads", heads, "--json", "--tree", 4, *COMMON)
    without, with_heads = json.loads(plain.output), json.loads(drafted.output)
    assert with_heads["tokens"] == without["tokens"]
    assert (without["heads"], with_heads["heads"]) == (None, str(heads))
    assert with_heads["statistics"]["nodes"] > with_heads["statistics"]["steps"]


def test_whoever_guesses_the_text_is_the_same(medusa: Command, model: Path, heads: Path) -> None:
    flags = ("--frequency-penalty", -1, "--json", "--tree", 6, "--dtype", "float64", "--max-tokens", 40)
    found = {}
    for draft in ("both", "heads", "lookup", "none"):
        with_heads = ("--heads", heads) if draft in ("both", "heads") else ()
        ended = medusa("generate", model, "-p", "abab", "--draft", draft, *with_heads, *flags)
        found[draft] = json.loads(ended.output)
        assert ("tokens looked up" in ended.error) == (draft in ("both", "lookup"))
    assert len({tuple(one["tokens"]) for one in found.values()}) == 1
    assert {draft: (one["heads"] is not None, one["lookup"]) for draft, one in found.items()} == {
        "both": (True, True),
        "heads": (True, False),
        "lookup": (False, True),
        "none": (False, False),
    }
    counts = {draft: one["statistics"] for draft, one in found.items()}
    assert counts["lookup"]["steps"] < counts["none"]["steps"] == counts["none"]["nodes"]
    assert counts["heads"]["looked_up"] == counts["none"]["looked_up"] == 0 < counts["both"]["looked_up"]
    assert counts["lookup"]["drafted"] == []


def test_no_heads_decodes_plainly_unless_lookup_is_asked_for(medusa: Command, model: Path) -> None:
    flags = ("-p", "abab", "--no-heads", "--json", *COMMON)
    assert json.loads(medusa("generate", model, *flags).output)["lookup"] is False
    assert json.loads(medusa("generate", model, "--draft", "lookup", *flags).output)["lookup"] is True


def test_json_is_one_object_that_says_all(medusa: Command, model: Path) -> None:
    found = json.loads(medusa("generate", model, "-p", "Hello", "--json", *COMMON).output)
    assert found["model"] == str(model)
    assert found["lossless"] is True
    assert found["finish_reason"] in ("stop", "length")
    assert found["statistics"]["tokens"] == len(found["tokens"]) - 1
    assert isinstance(found["text"], str)


def test_typical_acceptance_says_that_it_is_not_lossless(medusa: Command, model: Path, heads: Path) -> None:
    ended = medusa(
        "generate", model, "-p", "Hi", "--heads", heads, "--acceptance", "typical", "--json", *COMMON
    )
    assert json.loads(ended.output)["lossless"] is False
    assert "not lossless" in ended.error


def test_the_prompt_may_come_from_stdin(medusa: Command, model: Path) -> None:
    given = medusa("generate", model, "-p", "Hello", *COMMON)
    piped = medusa("generate", model, "-p", "-", *COMMON, stdin="Hello\n")
    assert piped.output == given.output


def test_raw_and_system_change_the_prompt(medusa: Command, model: Path) -> None:
    def prompt_tokens(*flags: str) -> int:
        found = json.loads(medusa("generate", model, "-p", "Hello", "--json", *flags, *COMMON).output)
        return int(found["statistics"]["prompt_tokens"])

    assert prompt_tokens("--raw") == 5
    assert prompt_tokens("--system", "Hm") == prompt_tokens() + len("?system\nHm?\n")


def test_sampling_follows_the_seed(medusa: Command, model: Path) -> None:
    flags = ("--temperature", 0.9, "--top-p", 0.9, *COMMON)
    first = medusa("generate", model, "-p", "Hi", "--seed", 1, *flags).output
    assert medusa("generate", model, "-p", "Hi", "--seed", 1, *flags).output == first
    assert medusa("generate", model, "-p", "Hi", "--seed", 2, *flags).output != first


def test_a_stop_string_ends_the_text(medusa: Command, model: Path) -> None:
    text = json.loads(medusa("generate", model, "-p", "Hello", "--json", *COMMON).output)["text"]
    stop = text[2]
    found = json.loads(medusa("generate", model, "-p", "Hello", "--json", "--stop", stop, *COMMON).output)
    assert found["text"] == text[: text.index(stop)]
    assert found["finish_reason"] == "stop"


def test_quiet_leaves_stderr_empty(medusa: Command, model: Path) -> None:
    assert medusa("generate", model, "-p", "Hello", "--quiet", *COMMON).error == ""


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-p", "x", "--system", "y", "--raw"], "--raw"),
        (["-p", " "], "the prompt is empty"),
        (["-p", "-"], "the prompt is empty"),
        (["-p", "x", "--heads", "h", "--no-heads"], "contradict"),
        (["-p", "x", "--draft", "heads", "--no-heads"], "contradict"),
        (["-p", "x", "--draft", "lookup", "--heads", "h"], "--draft lookup does not use --heads h"),
        (["-p", "x", "--load-in-4bit", "--load-in-8bit"], "contradict"),
    ],
)
def test_flags_that_contradict_are_refused(medusa: Command, model: Path, flags: list[str], said: str) -> None:
    ended = medusa("generate", model, *flags)
    assert (ended.status, ended.output) == (2, "")
    assert said in ended.error
