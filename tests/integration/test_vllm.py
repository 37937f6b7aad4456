"""Heads of this project in the real vLLM: `make test-vllm` installs it and runs this.

MEDUSA_VLLM_PYTHON names the interpreter of its environment, MEDUSA_VLLM_REPORT a file for the figures.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medusa_decoding.bench.machine import describe_machine
from medusa_decoding.cli.main import run
from medusa_decoding.heads import from_pretrained
from medusa_decoding.models import load_base_model, resolve

from .vllm_report import Side, counts_of, differences, of_this_project, of_vllm, same, total

PYTHON = os.environ.get("MEDUSA_VLLM_PYTHON", "")
needs_vllm = pytest.mark.skipif(not PYTHON, reason="vLLM has an environment of its own: make test-vllm")

TOKENS = 96
LARGEST_GAP = 1e-3
PROMPTS = (
    "Explain in simple words why the sky is blue.",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "Give me five tips for learning a new language.",
    "A train travels 60 km in 45 minutes. What is its speed in km per hour?",
    "Write a Python function that returns the largest number in a list.",
    "What are the main causes of the water cycle?",
    "Summarize the story of Romeo and Juliet in a few sentences.",
    "List the planets of the solar system with one fact about each.",
    "Write a polite email that asks a colleague to move a meeting to Friday.",
    "How do I boil an egg? Give numbered steps.",
    "What is the difference between a virus and a bacterium?",
    "Translate into French: The library opens at nine in the morning.",
    "Describe a day in the life of a medieval farmer.",
    "Why is exercise good for your health?",
    "Write a haiku about autumn leaves and explain it.",
    "Compare electric cars with petrol cars: name advantages of each.",
)


def test_steps_are_found_in_what_each_token_came_from() -> None:
    """Prefill; both guesses hold; none holds; the first holds, in a step that goes beyond the end."""
    sources = [0, 1, 2, 0, 0, 1, 0]
    assert counts_of(sources, 1, 2).drafts == 0
    assert counts_of(sources, 4, 2) == counts_of(sources, 2, 2)
    found = counts_of(sources, 6, 2)
    assert (found.drafts, found.accepted, found.rates) == (3, (2, 1), [2 / 3, 1 / 3])


@dataclass(frozen=True)
class Comparison:
    """plain, speculative: vLLM without and with the heads. model: the same weights in transformers."""

    plain: Side
    speculative: Side
    ours: Side
    model: Any

    @property
    def agreed(self) -> list[bool]:
        """Which prompts got one text from all three."""
        pairs = zip(same(self.plain, self.speculative), same(self.plain, self.ours), strict=True)
        return [one and other for one, other in pairs]

    def report(self) -> dict[str, Any]:
        """The figures."""
        theirs, ours = total(self.speculative, self.agreed), total(self.ours, self.agreed)
        sides = {"vllm": self.plain, "vllm_with_heads": self.speculative, "medusa_with_heads": self.ours}
        return {
            "machine": describe_machine(),
            "versions": self.plain.facts["versions"],
            "settings": {
                "model": "smollm2",
                "heads": "smollm2-plain",
                "dtype": "float32",
                "prompts": len(PROMPTS),
                "max_tokens": TOKENS,
                "threads": 1,
                "medusa_engine": self.ours.facts["engine"],
            },
            "equal_texts": {
                "of": len(PROMPTS),
                "vllm_with_heads_and_vllm": sum(same(self.plain, self.speculative)),
                "medusa_and_vllm": sum(same(self.plain, self.ours)),
                "all_three": sum(self.agreed),
            },
            "differences": {
                "vllm_with_heads_and_vllm": differences(self.model, self.plain, self.speculative),
                "medusa_and_vllm": differences(self.model, self.plain, self.ours),
            },
            "acceptance_on_equal_texts": {
                "vllm": {"drafts": theirs.drafts, "per_position": theirs.rates},
                "medusa": {"drafts": ours.drafts, "per_position": ours.rates},
            },
            "tokens_per_second_of_processor_time": {
                name: side.tokens_per_second for name, side in sides.items()
            },
        }


def convert(what: str, to: str, out: Path, *options: str) -> Path:
    """`medusa convert`, as a user writes it; float32, so that both engines multiply the same numbers."""
    arguments = ["convert", what, "--to", to, "--out", str(out), "--dtype", "float32", *options]
    assert run(arguments) == 0
    return out


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("vllm")
    model = convert("smollm2", "hf", folder / "smollm2")
    heads = convert("smollm2-plain", "vllm", folder / "heads", "--base", str(model))
    count = from_pretrained(heads).config.num_heads
    found = Comparison(
        plain=of_vllm(PYTHON, folder, model, PROMPTS, TOKENS, heads=None, count=count),
        speculative=of_vllm(PYTHON, folder, model, PROMPTS, TOKENS, heads=heads, count=count),
        ours=of_this_project(model, heads, PROMPTS, TOKENS, count),
        model=load_base_model(resolve(str(model)), dtype="float32").model,
    )
    if target := os.environ.get("MEDUSA_VLLM_REPORT"):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(json.dumps(found.report(), indent=1) + "\n", encoding="utf-8")
    return found


@needs_vllm
@pytest.mark.real
@pytest.mark.timeout(3600)
class TestInVllm:
    def test_prompts_have_the_same_ids(self, comparison: Comparison) -> None:
        for side in (comparison.speculative, comparison.ours):
            assert [one.prompt_ids for one in side.answers] == [
                one.prompt_ids for one in comparison.plain.answers
            ]

    def test_texts_part_only_at_near_ties(self, comparison: Comparison) -> None:
        """float32 sums in another order move probabilities by about 1e-5."""
        found = comparison.report()["differences"]
        for one in [*found["vllm_with_heads_and_vllm"], *found["medusa_and_vllm"]]:
            assert one["gap"] < LARGEST_GAP, one
        assert sum(comparison.agreed) >= 0.75 * len(PROMPTS)

    def test_vllm_accepts_what_this_project_accepts(self, comparison: Comparison) -> None:
        """On the same text with the same heads, within two points at every position."""
        theirs = total(comparison.speculative, comparison.agreed)
        ours = total(comparison.ours, comparison.agreed)
        assert theirs.drafts > 500
        # Heads that guess nothing would agree as well.
        assert theirs.rates[0] > 0.15
        for here, there in zip(ours.rates, theirs.rates, strict=True):
            assert abs(here - there) < 0.02, (ours, theirs)

    def test_heads_save_steps_in_vllm(self, comparison: Comparison) -> None:
        steps = sum(one.counts.drafts for one in comparison.speculative.answers)
        assert steps < 0.8 * sum(len(one.tokens) for one in comparison.speculative.answers)
