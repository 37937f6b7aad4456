from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from medusa_decoding.bench.compare import Difference
from medusa_decoding.cli.demo import describe
from medusa_decoding.generation import Medusa, load
from tests.cli.conftest import Command

FLAGS = ("--dtype", "float64", "--max-tokens", "10", "--prompt", "Hello")


def test_the_answer_is_shown_twice_with_figures_and_found_identical(
    medusa: Command, model: Path, heads: Path
) -> None:
    text = load(str(model), dtype="float64").generate("Hello", max_tokens=10).text
    ended = medusa("demo", model, "--heads", heads, *FLAGS)
    assert ended.status == 0
    assert ended.output.count(text) == 2
    assert ended.output.count("tokens per step") == 2
    assert "identical: yes\n" in ended.output
    assert "\x1b" not in ended.output


def test_a_model_without_heads_is_shown_with_lookup(medusa: Command, model: Path) -> None:
    ended = medusa("demo", model, *FLAGS)
    assert ended.status == 0
    assert "with prompt lookup" in ended.output and "identical: yes\n" in ended.output


def test_different_texts_are_shown_and_end_with_status_1(
    medusa: Command, model: Path, heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Medusa.stream

    def stream(self: Medusa, prompt: str, options: object, *, speculative: bool = True) -> object:
        # With heads, something else is answered.
        return original(self, prompt if not speculative else f"{prompt}?", options, speculative=speculative)  # type: ignore[arg-type]

    monkeypatch.setattr(Medusa, "stream", stream)
    monkeypatch.setattr("medusa_decoding.bench.run.warm_up", lambda *_: None)
    ended = medusa("demo", model, "--heads", heads, *FLAGS)
    assert ended.status == 1
    assert "identical: no, from token " in ended.output
    assert "probability gap" in ended.output


def test_typical_acceptance_says_that_it_is_not_lossless(medusa: Command, model: Path, heads: Path) -> None:
    assert "not lossless" in medusa("demo", model, "--heads", heads, "--acceptance", "typical", *FLAGS).output


def test_a_difference_in_words(model: Path) -> None:
    medusa = load(str(model), dtype="float64")
    found = Difference(4, (34, 35), (0.51, 0.5))
    words = describe(medusa, found)
    assert words.startswith("from token 5: ")
    assert f"{medusa.tokenizer.decode([34])!r} (0.51) plainly" in words
    assert words.endswith("probability gap 0.01")
    ended = dataclasses.replace(found, tokens=(None, 35), probabilities=(None, 0.5))
    assert "the end plainly" in describe(medusa, ended)


@pytest.mark.real
def test_the_demo_of_the_packaged_heads_takes_fewer_steps_for_the_same_text(medusa: Command) -> None:
    ended = medusa("demo", "--max-tokens", "24")
    assert (ended.status, ended.error) == (0, "")
    assert "identical: yes\n" in ended.output
    steps = [int(found) for found in re.findall(r"tokens per step, (\d+) steps", ended.output)]
    assert steps[0] == 23
    assert steps[1] < steps[0]
