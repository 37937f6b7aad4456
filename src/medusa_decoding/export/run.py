"""`convert`: heads in another engine's layout, in a folder that tells how to use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from medusa_decoding.decoding.tree import Choices
from medusa_decoding.errors import UserError
from medusa_decoding.export.base import name_elsewhere, projection_of, source_of, write_base
from medusa_decoding.export.config import ConvertConfig, Target
from medusa_decoding.export.given import Given, given_heads
from medusa_decoding.export.losses import losses_of, rounding
from medusa_decoding.export.page import page
from medusa_decoding.export.vocabulary import with_all_rows, without_draft_vocabulary
from medusa_decoding.export.written import CHAINS, Export, chain, megabytes
from medusa_decoding.files import atomic_folder
from medusa_decoding.heads.formats import FORMATS
from medusa_decoding.heads.formats.full import CONFIG_FILE
from medusa_decoding.heads.formats.tensors import read_json, write_json
from medusa_decoding.heads.module import MedusaHeads
from medusa_decoding.heads.pretrained import DTYPES
from medusa_decoding.heads.state import state_of
from medusa_decoding.models import ALIASES

CARD_FILE = "README.md"
CHOICES_FILE = "medusa_choices.json"
# Of RTP-LLM: the paper's typical acceptance, and the ranks per head of the original implementation.
_THRESHOLD, _ALPHA, _RANKS = 0.09, 0.3, 10

Say = Callable[[str], None]


def convert(config: ConvertConfig, say: Say = lambda _: None) -> Export:
    """Write the heads; `say` gets what the user should know before anything large happens.

    The folder is there whole or not at all. Raises UserError where it exists, where there are no heads or no
    base model, and where the layout cannot hold them.
    """
    if config.out.exists():
        raise UserError(f"{config.out} is there already: give a new folder with --out")
    to = config.to
    assert to != "hf", "a base model is no heads: `convert_model`"
    given = given_heads(config.heads, config.tree)
    if given.instead_of is not None:
        say(
            f"the heads of {given.instead_of} see the root token, which no other engine shows them: its plain"
            f" ones, {given.name}, are converted"
        )
    layout = _layout(config.to, given)
    dtype = given.dtype if config.dtype == "auto" else DTYPES[config.dtype]
    heads, changed = _prepared(given, layout, config.base, dtype)
    if layout in ("v1", "full") and given.config.projection == "shared":
        say(_announced(heads, dtype))
    export = _facts(config, to, given, layout, changed)
    heads.config = heads.config.model_copy(update={"base_model": export.base})
    with atomic_folder(config.out) as folder:
        if layout == "full":
            write_base(source_of(config.base, given.config), folder)
        FORMATS[layout].save(heads, folder, dtype=dtype)
        _write_choices(export, folder)
        (folder / CARD_FILE).write_text(page(export), encoding="utf-8")
        size = sum(path.stat().st_size for path in folder.iterdir())
    return replace(export, size=size)


def _layout(to: str, given: Given) -> str:
    """TGI's version 2 is small, but knows one block and one projection only; TensorRT-LLM reads `v1`."""
    if to == "tgi":
        return "v2" if given.config.projection == "shared" and given.config.num_layers == 1 else "v1"
    return "v1" if to == "tensorrt-llm" else to


def _prepared(
    given: Given, layout: str, base: str | None, dtype: torch.dtype
) -> tuple[MedusaHeads, tuple[str, ...]]:
    """Heads that the layout can hold bit for bit, and how the given ones were rounded for that."""
    heads = given.heads
    phrases = [rounding(state_of(heads).values(), dtype, "the heads' weights are")]
    shared = heads.config.projection == "shared"
    if layout == "full" or (shared and layout != "v2"):
        rows, bias = projection_of(source_of(base, given.config), given.config)
        heads.bind(rows, lm_head_bias=bias)
    if heads.lm_head is not None:
        phrases.append(rounding((heads.lm_head,), dtype, "the base model's projection is"))
    return _adapted(heads, layout), tuple(phrase for phrase in phrases if phrase is not None)


def _adapted(heads: MedusaHeads, layout: str) -> MedusaHeads:
    if heads.config.draft_vocabulary_size is None or layout == "vllm":
        return heads
    if layout == "v2" and heads.config.projection == "shared":
        return without_draft_vocabulary(heads)
    return heads if layout == "v2" else with_all_rows(heads, layout)


def _announced(heads: MedusaHeads, dtype: torch.dtype) -> str:
    count, rows, width = heads.config.num_heads, heads.config.vocabulary_size, heads.config.hidden_size
    assert rows is not None
    size = megabytes(count * rows * width * dtype.itemsize)
    return f"the shared projection is written out once per head: {count} × {rows:,} × {width:,}, {size}"


def _facts(config: ConvertConfig, to: Target, given: Given, layout: str, changed: tuple[str, ...]) -> Export:
    base = config.base or given.config.base_model
    losses = losses_of(given.config, to, layout, has_tree=given.choices is not None)
    chosen = None if to in CHAINS else given.choices or chain(given.config.num_heads)
    return Export(
        to=to,
        layout=layout,
        out=config.out,
        given=given.config,
        name=given.name,
        base=name_elsewhere(base),
        file=Path(base).name if base is not None and (base in ALIASES or base.endswith(".gguf")) else None,
        choices=chosen,
        tuned=given.choices is not None,
        losses=(*changed, *losses),
        size=0,
    )


def _write_choices(export: Export, folder: Path) -> None:
    """The tree as a file, and where RTP-LLM looks for it."""
    if export.choices is None:
        return
    (folder / CHOICES_FILE).write_text(export.choices_text + "\n", encoding="utf-8")
    if export.layout == "full":
        content = read_json(folder / CONFIG_FILE)
        write_json(folder / CONFIG_FILE, content | {"medusa_config": _rtp(export, export.choices)})


def _rtp(export: Export, choices: Choices) -> dict[str, object]:
    return {
        "medusa_num_heads": export.given.num_heads,
        "medusa_num_layers": export.given.num_layers,
        "medusa_choices": json.loads(export.choices_text),
        "top_k": max(_RANKS, 1 + max(rank for path in choices for rank in path)),
        "posterior_threshold": _THRESHOLD,
        "posterior_alpha": _ALPHA,
    }
