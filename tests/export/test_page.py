"""What the README of an export says, and that the command says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medusa_decoding.export.config import Target
from medusa_decoding.export.engines import HERE, service_of
from medusa_decoding.export.page import page

from .conftest import MakeHeads
from .test_run import CUT, TARGETS, run

# What the engine must be told, each time.
SERVED: dict[Target, list[str]] = {
    "v1": [
        "torch.save(s.load_file('medusa_lm_head.safetensors'), 'medusa_lm_head.pt')",
        "medusa.inference.cli",
    ],
    "v2": [f"text-generation-launcher --model-id {HERE} --speculate 3"],
    "vllm": [
        "vllm serve BASE --speculative-config"
        f' \'{{"method": "medusa", "model": "{HERE}", "num_speculative_tokens": 3}}\'',
    ],
    "tgi": [f"text-generation-launcher --model-id {HERE} --speculate 3"],
    "tensorrt-llm": [
        f"--medusa_model_dir {HERE}",
        "--num_medusa_heads 3 --num_medusa_layers 1 --max_medusa_token_len 3",
        '--medusa_choices "[[0],[1],[0,0]]"',
    ],
    "full": [f"medusa serve {HERE}"],
}


@pytest.mark.parametrize("to", TARGETS)
def test_it_tells_how_to_serve_and_every_loss_and_no_path_of_this_machine(
    make_heads: MakeHeads, base: Path, tmp_path: Path, to: Target
) -> None:
    export = run(make_heads(**CUT), to, tmp_path / "out", base, tree="[[0],[1],[0,0]]", dtype="float16")
    text = (tmp_path / "out" / "README.md").read_text()
    assert text == page(export)
    commands = re.search(r"```sh\n(.*?)\n```", text, re.DOTALL)
    assert commands is not None
    for command in SERVED[to]:
        assert command in commands[1]
    assert export.losses and all(f"- {loss}\n" in text for loss in export.losses)
    assert all(f"- {line}\n" in text for line in service_of(export).does)
    assert "biases" in text and ("no tree" in text) != ("tree of" in text or "of 3 nodes" in text)
    assert str(tmp_path) not in text and str(base.parent) not in text


def test_without_loss_it_says_so(make_heads: MakeHeads, base: Path, tmp_path: Path) -> None:
    run(make_heads(), "vllm", tmp_path / "out", base)
    assert "lost in this layout\n- nothing\n" in (tmp_path / "out" / "README.md").read_text()


def test_heads_of_a_quantised_file_say_where_the_very_weights_come_from(tmp_path: Path) -> None:
    run("smollm2-plain", "v2", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "`HuggingFaceTB/SmolLM2-135M-Instruct`" in text
    assert "medusa convert smollm2 --to hf" in text
