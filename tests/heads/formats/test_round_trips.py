"""Every layout holds what it can hold bit for bit, and refuses the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medusa_decoding.errors import UserError
from medusa_decoding.heads import MedusaHeads
from medusa_decoding.heads.formats import FORMATS, detect
from medusa_decoding.heads.state import build_heads, state_of

from ..conftest import DRAFT, MakeHeads
from .conftest import assert_same_proposals, same_tensors

OWN: dict[str, Any] = {"projection": "own"}
CUT: dict[str, Any] = {"draft_vocabulary_size": DRAFT}
ROOT: dict[str, Any] = {"condition": "root"}
DEEP: dict[str, Any] = {"num_layers": 2, "base_model": "some/model"}

HELD = [
    ("native", ROOT | CUT | DEEP | {"calibration": [1.0, 2.0, 3.0]}),
    ("native", OWN | ROOT),
    ("v1", OWN),
    ("v1", OWN | DEEP),
    ("v1", OWN | {"num_layers": 0}),
    ("v1", OWN | {"num_heads": 1}),
    ("v2", {}),
    ("v2", DEEP),
    ("v2", {"num_heads": 1}),
    ("vllm", {}),
    ("vllm", DEEP),
    ("vllm", OWN | DEEP),
    ("vllm", CUT),
    ("vllm", OWN | CUT | DEEP),
    ("vllm", {"num_heads": 1}),
    ("vllm", OWN | {"num_heads": 1}),
    ("vllm", {"num_layers": 0}),
]

REFUSED = [
    ("v1", ROOT, "see the root"),
    ("v2", ROOT, "see the root"),
    ("vllm", ROOT, "see the root"),
    ("v1", CUT | OWN, "draft vocabulary cannot be saved as v1.*vllm"),
    ("v2", CUT, "draft vocabulary cannot be saved as v2.*vllm"),
    ("v2", OWN, "save them as v1"),
    ("v2", {"num_layers": 0}, "save them as v1"),
]


@pytest.mark.parametrize(("layout", "fields"), HELD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_heads_come_back_bit_for_bit(
    make_heads: MakeHeads,
    lm_head: torch.Tensor,
    embedding: torch.Tensor,
    tmp_path: Path,
    layout: str,
    fields: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    heads = make_heads(**fields)
    FORMATS[layout].save(heads, tmp_path, dtype=dtype)
    assert detect(tmp_path) == layout
    config, state = FORMATS[layout].load(tmp_path)
    assert config == heads.config
    assert same_tensors(state, state_of(heads, dtype))
    loaded = build_heads(config, state)
    loaded.bind(lm_head, embedding)
    if dtype == torch.float16:
        heads = rounded(heads, lm_head, embedding)
    assert_same_proposals(loaded, heads)


def rounded(heads: MedusaHeads, lm_head: torch.Tensor, embedding: torch.Tensor) -> MedusaHeads:
    """The heads as fp16 leaves them, computing in fp32 with the base model's unrounded projection."""
    heads.half().float()
    heads.bind(lm_head, embedding)
    return heads


@pytest.mark.parametrize(("layout", "fields", "message"), REFUSED)
def test_what_a_layout_cannot_hold_is_refused(
    make_heads: MakeHeads, tmp_path: Path, layout: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        FORMATS[layout].save(make_heads(**fields), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["v1", "vllm"])
def test_a_shared_projection_is_written_only_when_bound(
    make_heads: MakeHeads, tmp_path: Path, layout: str
) -> None:
    unbound = MedusaHeads(make_heads().config)
    with pytest.raises(UserError, match="bind the heads"):
        FORMATS[layout].save(unbound, tmp_path)


@pytest.mark.parametrize("layout", ["v1", "vllm"])
def test_a_bias_of_the_shared_projection_has_no_place(
    make_heads: MakeHeads, lm_head: torch.Tensor, tmp_path: Path, layout: str
) -> None:
    heads = make_heads()
    heads.bind(lm_head, lm_head_bias=torch.ones(len(lm_head)))
    with pytest.raises(UserError, match="has a bias"):
        FORMATS[layout].save(heads, tmp_path)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff\xfe"])
def test_a_config_that_is_no_object_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        detect(tmp_path)


def test_a_base_models_folder_holds_no_heads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"looked for.*medusa_lm_head\.pt"):
        detect(tmp_path)
