from __future__ import annotations

import numpy as np

from medusa_decoding.heads import HeadsConfig
from medusa_decoding.training.tune_card import with_tuning
from medusa_decoding.training.tune_report import TuneReport, measure
from medusa_decoding.tuning.guesses import Guesses


def report(temperature: float) -> TuneReport:
    random = np.random.default_rng(0)
    said = np.tile([0.4, 0.3, 0.1], (90, 2, 1))
    guesses = Guesses(said, random.integers(0, 4, (90, 2)), np.arange(90) // 10)
    config = HeadsConfig(num_heads=2, num_layers=1, hidden_size=4, vocabulary_size=8)
    static = {"rows": 3, "tokens_per_step": 1.5, "tokens_per_step_held_out": 1.4}
    return TuneReport("m", "h", "cpu", {}, [[0], [1]], static, [measure(guesses, config, temperature)])


def test_a_card_gets_one_section_with_the_figures() -> None:
    found = report(0.7)
    card = with_tuning("# Heads\n\n## Run\n10 steps.\n", found)
    (one,) = found.measured
    assert card.startswith("# Heads\n\n## Run\n10 steps.\n\n## Tuning\n")
    errors = f"{one.error_before[1]:.3f} → {one.error_after[1]:.3f}"
    assert f"| 0.7 | 9 | 2 | {one.on_path[1]} | {one.right[1]:.3f} | {errors} |" in card
    assert "Best static tree of 3 rows (1.50 tokens per step" in card and "`[[0], [1]]`" in card


def test_a_later_tuning_takes_the_place_of_an_earlier_one() -> None:
    first = with_tuning("# Heads\n", report(0.7))
    second = with_tuning(first + "\n## Licence\nMIT\n", report(0.0))
    assert second.count("## Tuning") == 1
    assert "| 0 | 9 |" in second and "| 0.7 |" not in second
    assert "## Licence\nMIT\n" in second
