from __future__ import annotations

from typing import Any

import pytest
import torch

from medusa_decoding.engines import TorchEngine, support
from medusa_decoding.engines.support import inspect_model
from medusa_decoding.errors import UserError
from tests.engines.stateful_models import STATEFUL, stateful
from tests.engines.tiny_models import HYBRID, WINDOW, build, model_of


@pytest.mark.parametrize("kind", STATEFUL)
def test_what_cannot_verify_trees_says_so_and_names_the_way_out(kind: str) -> None:
    model = stateful(kind)
    with pytest.raises(UserError) as caught:
        TorchEngine(model)
    message = str(caught.value)
    assert f"'{model.config.model_type}'" in message
    assert "--no-heads" in message
    assert "\n" not in message


def test_known_models_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "_trial", lambda *_: "tried")
    inspect_model(model_of("llama"))
    with pytest.raises(UserError, match="tried"):
        inspect_model(model_of("granite"))


def test_foreign_code_under_a_known_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "_trial", lambda *_: "tried")
    model = build("Llama")
    model.__class__ = type("OtherLlama", (type(model),), {"__module__": "somewhere.else"})
    with pytest.raises(UserError, match="tried"):
        inspect_model(model)


class Backwards(torch.nn.Module):
    """Attention that a mask does not steer: adds what stands at the key before in the cache."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: torch.Tensor, **options: Any) -> Any:
        states = self.layer(hidden_states, **options)
        before = torch.roll(hidden_states, 1, dims=1)
        before[:, 0] = 0
        return states + 0.1 * before


def test_a_failed_trial_is_an_error() -> None:
    model = build("Granite")
    inspect_model(model)
    model.model.layers[1] = Backwards(model.model.layers[1])
    with pytest.raises(UserError, match=r"'granite'.*other logits than plain decoding.*--no-heads"):
        inspect_model(model)


def test_a_trial_that_breaks_is_an_error() -> None:
    model = build("Granite")
    model.model.layers[1] = torch.nn.Identity()
    with pytest.raises(UserError, match="a trial tree failed: TypeError"):
        inspect_model(model)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Mixtral", {"sliding_window": 64, "num_local_experts": 4}),
        ("Cohere2", {"sliding_window": 64, "layer_types": HYBRID}),
    ],
)
def test_the_trial_looks_beyond_windows_of_any_size(
    kind: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is narrowed for the trial, and put back; a window one too wide fails it."""
    model = build(kind, **fields)
    found = inspect_model(model)
    assert 64 in found.masks.windows.values()
    assert model.config.sliding_window == 64
    monkeypatch.setattr(support, "TRIAL_WINDOW", 40)
    inspect_model(model)
    monkeypatch.undo()
    wide = support.MaskStyle
    monkeypatch.setattr(
        support,
        "MaskStyle",
        lambda windows, many: wide({kind: size and size + 1 for kind, size in windows.items()}, many),
    )
    with pytest.raises(UserError, match="other logits"):
        inspect_model(model)
    assert model.config.sliding_window == 64


def test_a_window_by_another_way_fails_the_trial() -> None:
    """The model goes by a window of its own; the config's is not what it looks at."""
    model = build("Mixtral", num_local_experts=4, sliding_window=64)
    inner = model.model.forward
    model.model.forward = lambda *args, **options: inner(
        *args, **{**options, "attention_mask": _windowed(options["attention_mask"], options["input_ids"])}
    )
    with pytest.raises(UserError, match="other logits"):
        inspect_model(model)


def _windowed(mask: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
    if mask is not None:
        return mask
    places = torch.arange(ids.shape[1])
    seen = (places <= places[:, None]) & (places > places[:, None] - WINDOW)
    return torch.zeros(1, 1, *seen.shape, dtype=torch.float64).masked_fill(
        ~seen, torch.finfo(torch.float64).min
    )


def test_attention_that_takes_no_masks_is_refused() -> None:
    model = build("Llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="'flash_attention_2' takes no tree masks, 'sdpa' would"):
        inspect_model(model)


ROPE = {"rope_theta": 100.0, "factor": 4.0}
LONGROPE = {
    **ROPE,
    "rope_type": "longrope",
    "short_factor": [1.0, 1.0],
    "long_factor": [2.0, 3.0],
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    ("kind", "fields", "most"),
    [
        ("Phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}, 16),
        ("Llama", {"rope_parameters": {**ROPE, "rope_type": "dynamic"}}, 64),
        ("Llama", {"rope_parameters": {**ROPE, "rope_type": "linear"}}, None),
        ("Llama", {}, None),
        ("Gemma3Text", {"sliding_window": WINDOW, "layer_types": HYBRID}, None),
        ("GPT2", {}, None),
    ],
)
def test_rotary_scalings_that_change_with_the_length(
    kind: str, fields: dict[str, Any], most: int | None
) -> None:
    assert inspect_model(build(kind, **fields)).positions == most
