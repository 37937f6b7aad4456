"""The numbers that are drawn are those of the files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.plots import made
from tests.plots.conftest import Draw


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    """Of those in the legend: label → points."""
    return {
        line.get_label(): list(zip(*(np.asarray(part).tolist() for part in line.get_data()), strict=True))
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def words(figure: Figure) -> list[str]:
    """All texts in the drawing."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_costs_of_one_engine_by_context(drawn: Draw) -> None:
    picture, figure = drawn(p=made.profile())
    milliseconds, ratios = figure.axes
    assert lines(milliseconds)["after 256 tokens"] == [(1, 4.0), (2, 5.0), (4, 7.0)]
    assert lines(milliseconds)["after 2048 tokens"] == [(1, 10.0), (2, 11.0), (4, 13.0)]
    assert {y for _, y in lines(milliseconds)["weights read once"]} == {3.5}
    assert [line.get_ydata()[2] for line in ratios.get_lines()] == [7 / 4, 1.3]
    assert "4 rows cost 1.75 times one row" in picture.caption


def test_costs_of_engines_stand_beside_each_other(drawn: Draw) -> None:
    picture, figure = drawn(flat=made.profile("flat", 0.1), steep=made.profile("steep", 2.0))
    assert picture.name == "cost-of-verification"
    assert picture.sources == ("flat", "steep")
    found = lines(figure.axes[0])
    # The model and the context, which both have in common, stand above.
    assert picture.subtitle.startswith("smollm2 after 256 tokens; ")
    assert found["flat"][-1] == (4, 4.3) and found["steep"][-1] == (4, 10.0)
    assert "1.1 times one row on flat, 2.5 times on steep" in picture.caption


def test_costs_of_several_models_are_named_each(drawn: Draw) -> None:
    other = {**made.profile("steep", 2.0), "model": "qwen"}
    picture, figure = drawn(one=made.profile("flat", 0.1), two=other)
    assert "after" not in picture.subtitle
    assert {"smollm2, flat, after 256 tokens", "qwen, steep, after 256 tokens"} <= set(lines(figure.axes[0]))


def test_speedup_by_category(drawn: Draw) -> None:
    picture, figure = drawn(b=made.bench())
    [axes] = figure.axes
    order = [label.get_text() for label in axes.get_yticklabels()]
    assert order == ["math reasoning", "qa", "empty", "all"]
    assert lines(axes)["speedup"] == [(1.5, 0), (1.1, 1), (1.3, 3)]
    assert lines(axes)["tokens per step"] == [(2.0, 0), (1.5, 1), (1.8, 3)]
    assert "From 1.10 (qa) to 1.50 (math reasoning)." in picture.caption
    assert picture.title.endswith("smollm2 with its heads and prompt lookup")


def test_who_guesses_by_category(drawn: Draw) -> None:
    picture, figure = drawn(d=made.drafters())
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rag", "qa", "all"]
    assert lines(axes) == {
        "heads": [(1.2, 0), (1.2, 1), (1.2, 2)],
        "prompt lookup": [(3.0, 0), (1.0, 1), (1.4, 2)],
        "heads and lookup": [(3.5, 0), (1.5, 1), (1.9, 2)],
    }
    assert "With both from 1.50 (qa) to 3.50 (rag)." in picture.caption


def test_accuracy_by_head_and_top_k(drawn: Draw) -> None:
    picture, figure = drawn(t=made.tuning())
    greedy, warm = figure.axes
    assert greedy.get_title("left") == "greedy, 40 texts"
    heights = [[bar.get_height() for bar in bars] for bars in greedy.containers]
    assert heights == [[0.5, 0.3], [0.7, 0.45], [0.8, 0.6]]
    assert [bar.get_height() for bar in warm.containers[0]] == [0.4, 0.2]
    assert (
        "right in 50% of places, one of its 10 likeliest in 80%; of head 2's 30% and 60%" in picture.caption
    )


@pytest.mark.parametrize(("kept", "share"), [(None, 0.45), (1, 0.4)])
def test_a_training_shows_the_epoch_that_was_kept(drawn: Draw, kept: int | None, share: float) -> None:
    _, figure = drawn(t=made.training(kept))
    assert next(bar.get_height() for bar in figure.axes[0].containers[0]) == share


def test_number_of_heads_with_the_fastest_ringed(drawn: Draw) -> None:
    picture, figure = drawn(n=made.head_counts())
    tokens, speed = figure.axes
    assert lines(tokens) == {"the planner's trees": [(1, 1.5), (2, 1.7)], "16 rows": [(1, 1.6), (2, 1.9)]}
    assert lines(speed) == {"the planner's trees": [(1, 1.25), (2, 1.2)], "16 rows": [(1, 0.9), (2, 0.8)]}
    assert [line.get_data() for line in speed.get_lines()][-1] == ([1], [1.25])
    assert "Ringed: 1 head, fastest on this machine, 1.25 times plain decoding" in picture.caption


def test_tree_sizes_with_the_planners_choice(drawn: Draw) -> None:
    picture, figure = drawn(n=made.tree_sizes())
    tokens, speed = figure.axes
    assert lines(tokens)["n rows at each step"] == [(2, 1.4), (4, 1.6), (16, 1.9)]
    assert lines(speed)["n rows at each step"] == [(2, 1.1), (4, 1.3), (16, 0.9)]
    assert lines(tokens)["the planner's choice, on average"] == [(4.5, 1.65)]
    assert lines(speed)["the planner's choice, on average"] == [(4.5, 1.35)]
    assert "best fixed size here is 4 rows, 1.30 times" in picture.caption


def test_speeds_with_intervals_and_the_quality_of_weights(drawn: Draw) -> None:
    picture, figure = drawn(a=made.against())
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "medusa",
        "autoregressive",
        "llama.cpp Q4_0",
    ]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == [90.0, 60.0, 30.0]
    assert [bar.get_hatch() for bar in bars] == ["///", "///", ""]
    [whiskers] = [found for found in axes.collections if len(found.get_segments()) == 3]
    assert [segment[:, 0].tolist() for segment in whiskers.get_segments()] == [[89, 92], [59, 62], [29, 32]]
    assert words(figure)[2] == "30.0 (×3.00)   int8, perplexity 16.50"
    assert "llama.cpp Q4_0 comes nearest: medusa is 3.00 times as fast (2.90 to 3.20)" in picture.caption


def test_a_draft_tree_with_its_probabilities_and_its_accepted_path(drawn: Draw) -> None:
    picture, figure = drawn(d=made.decode())
    assert picture.name == "d-draft-tree"
    assert "checks all 4 guesses" in picture.caption
    assert "sum, 2.44," in picture.caption
    [axes] = figure.axes
    boxes = {
        text.get_text(): text.get_bbox_patch() for text in axes.texts if text.get_bbox_patch() is not None
    }
    assert list(boxes) == ["The", "1  cat", "1  dog", "2  sat", "2  ran", "."]
    thick = [name for name, box in boxes.items() if box is not None and box.get_linewidth() > 1]
    assert thick == ["The", "1  cat", "2  sat", "."]
    assert [text for text in words(figure) if text[0] == "0"] == ["0.60", "0.30", "0.30", "0.24"]
    # The accepted path is the first row; each node stands right of its parent.
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert {places[name][1] for name in thick} == {0}
    assert (
        places["The"][0] < places["1  dog"][0] == places["1  cat"][0] < places["2  ran"][0] < places["."][0]
    )


def test_a_decode_as_blocks_of_tokens(drawn: Draw) -> None:
    picture, figure = drawn(1, d=made.decode())
    [axes] = figure.axes
    boxes = [(one.get_x(), one.get_width()) for one in axes.patches if isinstance(one, Rectangle)]
    legend, tokens = boxes[:3], boxes[3:]
    assert len(legend) == 3
    (the, cat, sat, dot) = tokens
    assert cat[0] > the[0] + the[1] + 0.05
    assert sat[0] == pytest.approx(cat[0] + cat[1])
    assert dot[0] == pytest.approx(sat[0] + sat[1])
    assert words(figure)[-8:] == ["The", "", " cat", "1", " sat", "2", ".", ""]
    assert "4 tokens in 2 passes, the prompt's included, 2 of them guesses" in picture.caption
