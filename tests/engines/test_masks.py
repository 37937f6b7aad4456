from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_decoding.engines.masks import BatchShape, MaskStyle, build_masks, mask_style
from tests.engines.tiny_models import WINDOW, build, model_of


@st.composite
def shapes(draw: st.DrawFn) -> BatchShape:
    """Random trees of several sequences, padded."""
    batch, most = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    counts = draw(st.lists(st.integers(1, most), min_size=batch, max_size=batch))
    bases = draw(st.lists(st.integers(0, 9), min_size=batch, max_size=batch))
    parents = np.full((batch, most), -1)
    positions = np.repeat(np.array(bases)[:, None], most, axis=1)
    for index, count in enumerate(counts):
        for row in range(1, count):
            parents[index, row] = draw(st.integers(0, row - 1))
            positions[index, row] = positions[index, parents[index, row]] + 1
    return BatchShape(np.array(counts), np.array(bases), parents, positions)


def sees(shape: BatchShape, index: int, row: int, key: int, window: int | None) -> bool:
    """One cell of the mask, from the definition: the key is the row, an ancestor or committed, and within
    reach.
    """
    base = int(shape.bases[index])
    if row >= shape.counts[index]:
        return key == base + row
    above, distance = row, 0
    while above != -1:
        if key == base + above:
            break
        above, distance = int(shape.parents[index, above]), distance + 1
    if above == -1:
        if key >= base:
            return False
        distance = int(shape.positions[index, row]) - key
    return window is None or distance < window


@settings(deadline=None, derandomize=True, max_examples=50)
@given(shapes(), st.sampled_from([1, 2, 4, 7]))
def test_masks_equal_the_definition(shape: BatchShape, window: int) -> None:
    style = MaskStyle({"full_attention": None, "sliding_attention": window}, True)
    masks = build_masks(style, shape, torch.float64, torch.device("cpu"))
    batch, rows = shape.parents.shape
    keys = int(shape.bases.max()) + rows
    for kind, width in (("full_attention", None), ("sliding_attention", window)):
        assert masks[kind].shape == (batch, 1, rows, keys)
        expected = [
            [[sees(shape, index, row, key, width) for key in range(keys)] for row in range(rows)]
            for index in range(batch)
        ]
        assert (masks[kind][:, 0] == 0).tolist() == expected
        hidden = masks[kind][masks[kind] != 0]
        assert (hidden == torch.finfo(torch.float64).min).all()


def test_one_mask_where_the_model_takes_one() -> None:
    shape = BatchShape(np.array([2]), np.array([1]), np.array([[-1, 0]]), np.array([[1, 2]]))
    mask = build_masks(MaskStyle({"all": 2}, False), shape, torch.bfloat16, torch.device("cpu"))
    assert mask.dtype == torch.bfloat16
    assert (mask[0, 0] == 0).tolist() == [[True, True, False], [False, True, True]]


@pytest.mark.parametrize(
    ("name", "windows", "by_layer_type"),
    [
        ("llama", {"all": None}, False),
        ("mistral", {"all": WINDOW}, False),
        ("mistral-full", {"all": None}, False),
        ("phi3-sliding", {"all": WINDOW}, False),
        ("qwen2", {"full_attention": None}, True),
        ("qwen2-sliding", {"full_attention": None, "sliding_attention": WINDOW}, True),
        ("gemma3", {"full_attention": None, "sliding_attention": WINDOW}, True),
        ("gpt2", {"all": None}, False),
    ],
)
def test_styles(name: str, windows: dict[str, int | None], by_layer_type: bool) -> None:
    assert mask_style(model_of(name)) == MaskStyle(windows, by_layer_type)


def test_a_window_that_the_model_never_looks_at_is_none() -> None:
    assert mask_style(build("Llama", sliding_window=WINDOW)) == MaskStyle({"all": None}, False)


@pytest.mark.parametrize(
    "field",
    [
        {"window_size": 256},
        {"attention_window": 64},
        {"sliding_window_size": 64},
        {"local_attention": 128},
        {"attention_chunk_size": 8192},
        {"index_topk": 2048},
        {"block_size": 64},
        {"layer_types": ["chunked_attention", "full_attention", "full_attention"]},
        {"layer_types": ["linear_attention", "full_attention", "full_attention"]},
        {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    ],
)
def test_windows_under_other_names_are_not_trusted(field: dict[str, object]) -> None:
    model = build("Llama")
    for name, value in field.items():
        setattr(model.config, name, value)
    assert mask_style(model) is None


def test_fields_that_are_off_do_no_harm() -> None:
    model = build("Llama")
    model.config.attention_window = None
    model.config.window_size = 0
    assert mask_style(model) is not None


def test_a_model_without_source_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it takes one mask or several could only be guessed."""

    def missing(_: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr("inspect.getsource", missing)
    assert mask_style(model_of("qwen2-sliding")) is None
