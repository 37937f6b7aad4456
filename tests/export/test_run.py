"""Round trips, what is lost in them, and what is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import medusa_decoding
from medusa_decoding.errors import UserError
from medusa_decoding.export.config import ConvertConfig, Target
from medusa_decoding.export.run import convert
from medusa_decoding.export.written import Export
from medusa_decoding.heads import from_pretrained
from medusa_decoding.heads.formats import detect
from medusa_decoding.heads.state import state_of
from tests.tiny import VOCABULARY_SIZE

from .conftest import DRAFT, HEADS, MakeHeads, assert_same_tokens, guesses

CUT: dict[str, Any] = {"draft_vocabulary_size": DRAFT}
TARGETS: dict[Target, str] = {
    "v1": "v1",
    "v2": "v2",
    "vllm": "vllm",
    "tgi": "v2",
    "tensorrt-llm": "v1",
    "full": "full",
}


def run(heads: object, to: Target, out: Path, base: Path | None = None, **fields: Any) -> Export:
    given = {} if base is None else {"base": str(base)}
    return convert(ConvertConfig(heads=str(heads), to=to, out=out, **given, **fields))


@pytest.mark.parametrize(("to", "layout"), TARGETS.items())
def test_heads_come_back_with_the_same_bits_guesses_and_text(
    make_heads: MakeHeads, base: Path, lm_head: torch.Tensor, tmp_path: Path, to: Target, layout: str
) -> None:
    heads, out = make_heads(), tmp_path / "out"
    export = run(heads, to, out, base)
    assert export.losses == () and detect(out) == layout
    given, loaded = from_pretrained(heads), from_pretrained(out)
    expected = state_of(given)
    if layout in ("v1", "full"):
        expected |= {f"{head}.1.weight": lm_head for head in range(HEADS)}
    found = state_of(loaded)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    one, other = guesses(given, lm_head), guesses(loaded, lm_head)
    assert_same_tokens(one, other)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=1e-5)
    for engine in ("cpu", "torch"):
        plain = medusa_decoding.load(str(base), draft="none", engine=engine)
        drafted = medusa_decoding.load(str(base), heads=out, draft="heads", tree=5, engine=engine)
        text = plain.generate("Once", max_tokens=20).tokens
        assert drafted.generate("Once", max_tokens=20).tokens == text


def test_a_whole_checkpoint_brings_its_heads_along(make_heads: MakeHeads, base: Path, tmp_path: Path) -> None:
    run(make_heads(), "full", tmp_path / "out", base)
    whole = medusa_decoding.load(str(tmp_path / "out"))
    assert whole.heads is not None and whole.heads.config.num_heads == HEADS
    assert whole.heads_name == str(tmp_path / "out")
    plain = medusa_decoding.load(str(base), draft="none")
    assert whole.fingerprint == plain.fingerprint
    assert whole.generate("Once", max_tokens=20).tokens == plain.generate("Once", max_tokens=20).tokens


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("v1", "is written out as all 258"),
        ("full", "is written out as all 258"),
        ("v2", "the engine takes the likeliest of all 258"),
        ("vllm", "is written out as all 258"),
    ],
)
def test_what_becomes_of_a_draft_vocabulary_is_said(
    make_heads: MakeHeads, base: Path, lm_head: torch.Tensor, tmp_path: Path, to: Target, said: str
) -> None:
    heads = make_heads(**CUT)
    export = run(heads, to, tmp_path / "out", base)
    assert len(export.losses) == 1 and said in export.losses[0]
    loaded = from_pretrained(tmp_path / "out")
    assert loaded.config.draft_vocabulary_size == (DRAFT if to == "vllm" else None)
    assert loaded.config.vocabulary_size == VOCABULARY_SIZE
    if to != "v2":
        assert_same_tokens(guesses(loaded, lm_head), guesses(from_pretrained(heads), lm_head))


def test_calibration_and_fingerprint_are_lost_with_a_word(
    make_heads: MakeHeads, base: Path, tmp_path: Path
) -> None:
    heads = make_heads(calibration=[1.0, 2.0, 3.0], base_fingerprint="another")
    with pytest.warns(UserWarning, match="other weights"):
        export = run(heads, "vllm", tmp_path / "out", base)
    assert [loss.split(":")[0].split(" of")[0] for loss in export.losses] == [
        "the calibration",
        "the base model's fingerprint",
    ]


def test_rounding_is_said_and_only_where_values_change(
    make_heads: MakeHeads, base: Path, tmp_path: Path
) -> None:
    export = run(make_heads(), "v1", tmp_path / "half", base, dtype="float16")
    assert export.losses == (
        "the heads' weights are rounded to float16",
        "the base model's projection is rounded to float16",
    )
    found = load_file(tmp_path / "half" / "medusa_lm_head.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    # Heads that are kept in float16 stay as they are, and "auto" keeps the type.
    again = run(tmp_path / "half", "v1", tmp_path / "again")
    assert again.losses == ()
    assert (tmp_path / "again" / "medusa_lm_head.safetensors").read_bytes() == (
        tmp_path / "half" / "medusa_lm_head.safetensors"
    ).read_bytes()


def test_the_size_of_projections_per_head_is_said_first(
    make_heads: MakeHeads, base: Path, tmp_path: Path
) -> None:
    said: list[tuple[str, bool]] = []
    out = tmp_path / "out"
    config = ConvertConfig(heads=str(make_heads()), to="v1", out=out, base=str(base))
    convert(config, say=lambda text: said.append((text, out.exists())))
    assert said == [("the shared projection is written out once per head: 3 × 258 × 16, 0.0 MB", False)]


@pytest.mark.parametrize("to", ["v1", "tensorrt-llm", "full"])
def test_the_tuned_tree_goes_along(make_heads: MakeHeads, base: Path, tmp_path: Path, to: Target) -> None:
    heads = make_heads()
    assert json.loads(json.dumps(run(heads, to, tmp_path / "first", base).choices)) == [
        [0],
        [0, 0],
        [0, 0, 0],
    ]
    tuned = [[0], [1], [0, 0]]
    (heads / "tuning.json").write_text(json.dumps({"medusa_choices": tuned}))
    assert run(heads, to, tmp_path / "second", base).tuned
    assert json.loads((tmp_path / "second" / "medusa_choices.json").read_text()) == tuned
    run(heads, to, tmp_path / "third", base, tree="[[0],[4]]")
    assert json.loads((tmp_path / "third" / "medusa_choices.json").read_text()) == [[0], [4]]
    # The file is one that --tree takes.
    choices = tmp_path / "third" / "medusa_choices.json"
    medusa_decoding.load(str(base), heads=heads, tree=choices)


def test_engines_that_draft_chains_get_no_tree(make_heads: MakeHeads, base: Path, tmp_path: Path) -> None:
    export = run(make_heads(), "vllm", tmp_path / "out", base, tree="[[0],[1]]")
    assert export.losses == ("the static tree: the engine drafts a chain, each head's likeliest token",)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }


def test_an_alias_gives_its_plain_heads(tmp_path: Path) -> None:
    said: list[str] = []
    export = convert(ConvertConfig(heads="smollm2", to="v2", out=tmp_path / "out"), said.append)
    assert export.name == "smollm2-plain" and export.given.condition == "none"
    assert said == [
        "the heads of smollm2 see the root token, which no other engine shows them: its plain ones,"
        " smollm2-plain, are converted"
    ]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_heads_may_be_on_the_hub(
    make_heads: MakeHeads, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = make_heads()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(heads))
    assert run("some/heads", "v2", tmp_path / "out").name == "some/heads"
    assert from_pretrained(tmp_path / "out").config.num_heads == HEADS


@pytest.mark.parametrize(
    ("fields", "to", "more", "message"),
    [
        ({"condition": "root"}, "vllm", {}, r"root token's embedding.*--condition none"),
        ({"condition": "root", "base_model": "smollm2"}, "v1", {}, "convert the packaged smollm2-plain"),
        ({"projection": "own"}, "v2", {}, "save them as v1"),
        ({}, "v1", {"tree": "[[0,0]]"}, r"the tree in --tree cannot be used"),
        ({}, "v1", {"tree": "8"}, "is no static tree"),
        ({}, "v1", {"tree": "[[0],[0,0],[0,0,0],[0,0,0,0]]"}, "4 tokens deep, and there are 3 heads"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_writes_nothing(
    make_heads: MakeHeads,
    base: Path,
    tmp_path: Path,
    fields: dict[str, Any],
    to: Target,
    more: dict[str, Any],
    message: str,
) -> None:
    heads = make_heads(**fields)
    with pytest.raises(UserError, match=message) as caught:
        run(heads, to, tmp_path / "out", base, **more)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"heads"}


def test_a_base_model_is_asked_for_only_where_its_weights_are_needed(
    make_heads: MakeHeads, base: Path, tmp_path: Path
) -> None:
    heads = make_heads()
    with pytest.raises(UserError, match="give it with --base"):
        run(heads, "vllm", tmp_path / "out")
    assert run(heads, "v2", tmp_path / "v2").base is None
    assert run(make_heads("own", projection="own"), "vllm", tmp_path / "vllm").losses == ()


def test_heads_for_another_base_model_are_refused(make_heads: MakeHeads, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not fit this base model"):
        run(make_heads(vocabulary_size=VOCABULARY_SIZE + 1), "vllm", tmp_path / "out", base)
    with pytest.raises(UserError, match="do not fit this base model"):
        run(
            make_heads("own", vocabulary_size=VOCABULARY_SIZE + 1, projection="own"),
            "full",
            tmp_path / "out",
            base,
        )


def test_an_existing_folder_is_left_alone(make_heads: MakeHeads, base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        run(make_heads(), "vllm", tmp_path / "out", base)
    assert not list((tmp_path / "out").iterdir())
