"""`load`: find a base model, an engine for it and heads that fit it."""

from __future__ import annotations

import json
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medusa_decoding.decoding import (
    BestFirstPlanner,
    Drafter,
    ExactAcceptance,
    NoDrafter,
    Planner,
    StaticPlanner,
    TypicalAcceptance,
)
from medusa_decoding.decoding.acceptance import Acceptance
from medusa_decoding.decoding.tree import parse_choices
from medusa_decoding.errors import UserError
from medusa_decoding.generation.medusa import Medusa

if TYPE_CHECKING:
    from medusa_decoding.engines import PlainEngine, TorchEngine
    from medusa_decoding.heads import MedusaHeads
    from medusa_decoding.models import BaseModel, Source

DEFAULT_ROWS = 16


def load(
    model: str,
    *,
    heads: str | Path | None = "auto",
    tree: str | int | Path = "auto",
    acceptance: Literal["exact", "typical"] = "exact",
    engine: Literal["auto", "torch"] = "auto",
    device: str = "auto",
    dtype: str = "auto",
    quantization: Literal["4bit", "8bit"] | None = None,
    adapter: str | None = None,
    progress: bool = True,
) -> Medusa:
    """Load a base model and its heads.

    model: an alias ("smollm2"), a folder, a Hub id or a `.gguf` file. heads: a folder or Hub id; "auto" takes
    heads that come with this package and fit; None decodes plainly. tree: "auto" (best-first, 16 rows with
    the root), a number of rows, or a JSON file of `medusa_choices`. acceptance: "typical" is not lossless.
    device, dtype, quantization and adapter go to transformers. Raises UserError with the way out where
    something is not found or does not fit.
    """
    planner = planner_for(tree)
    rule = acceptance_for(acceptance)
    if engine not in ("auto", "torch"):
        raise UserError(f"unknown engine '{engine}': choose auto or torch")
    from medusa_decoding.models import load_base_model, resolve

    source = resolve(model, progress=progress)
    base = load_base_model(source, device=device, dtype=dtype, quantization=quantization, adapter=adapter)
    built = _engine(base, wants_heads=heads not in (None, "auto"))
    location = _heads_location(heads, source, base)
    medusa = Medusa(base.name, base.tokenizer, built, base.fingerprint, NoDrafter(), planner, rule)
    if location is not None and _verifies_trees(built):
        medusa.heads, medusa.drafter = _drafter(location, base, built)
        medusa.heads_name = str(heads) if heads != "auto" else f"packaged:{location.name}"
    return medusa


def planner_for(tree: str | int | Path) -> Planner:
    """The planner that `--tree` names: "auto", a number of rows, or a file of `medusa_choices`."""
    text = str(tree)
    if text == "auto":
        return BestFirstPlanner(DEFAULT_ROWS)
    if text.lstrip("+-").isdigit():
        if int(text) < 1:
            raise UserError(f"a tree cannot have {text} rows: give 1 (no guesses) or more, 'auto' or a file")
        return BestFirstPlanner(int(text))
    path = Path(text)
    if not path.is_file():
        raise UserError(f"no tree '{text}': give 'auto', a number of rows, or a JSON file of medusa_choices")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        choices = content.get("medusa_choices") if isinstance(content, dict) else content
        if not isinstance(choices, list) or not all(isinstance(one, list) for one in choices):
            raise ValueError("it should hold a list of paths such as [[0], [1], [0, 0]]")
        return StaticPlanner(parse_choices(choices))
    except ValueError as error:
        raise UserError(f"the tree in {path} cannot be used: {error}") from None


def acceptance_for(name: str) -> Acceptance:
    """The rule that `--acceptance` names."""
    if name == "exact":
        return ExactAcceptance()
    if name == "typical":
        return TypicalAcceptance()
    raise UserError(f"unknown acceptance '{name}': choose exact (lossless) or typical")


def packaged_heads() -> dict[str, Path]:
    """The heads that come with this package: name and folder."""
    root = Path(str(files("medusa_decoding") / "assets"))
    return {
        folder.name: folder for folder in sorted(root.glob("*")) if (folder / "medusa_config.json").is_file()
    }


def _engine(base: BaseModel, wants_heads: bool) -> TorchEngine | PlainEngine:
    from medusa_decoding.engines import PlainEngine, TorchEngine

    try:
        return TorchEngine(base.model, base.context_length)
    except UserError as error:
        if wants_heads:
            raise
        warnings.warn(f"{error} (decoding plainly)", stacklevel=3)
        return PlainEngine(base.model, base.context_length)


def _verifies_trees(engine: Any) -> bool:
    from medusa_decoding.engines import TorchEngine

    return isinstance(engine, TorchEngine)


def _heads_location(heads: str | Path | None, source: Source, base: BaseModel) -> Path | None:
    """Where the heads are.

    "auto": the alias' own, or packaged ones that were trained for the same weights.
    """
    if heads is None:
        return None
    packaged = packaged_heads()
    if heads != "auto":
        return packaged.get(str(heads).removeprefix("packaged:")) or Path(heads)
    if source.alias is not None and source.alias.default_heads in packaged:
        return packaged[source.alias.default_heads]
    for folder in packaged.values():
        config = json.loads((folder / "medusa_config.json").read_text(encoding="utf-8"))
        if config.get("base_fingerprint") == base.fingerprint:
            return folder
    return None


def _drafter(location: Path, base: BaseModel, engine: Any) -> tuple[MedusaHeads, Drafter]:
    from medusa_decoding.heads import MedusaDrafter, check_fingerprint, from_pretrained

    heads = from_pretrained(str(location), device=str(engine.device), dtype=engine.dtype)
    output = base.model.get_output_embeddings()
    heads.bind(output.weight, base.model.get_input_embeddings().weight, getattr(output, "bias", None))
    check_fingerprint(heads.config, base.fingerprint)
    heads.eval()
    return heads, MedusaDrafter(heads)
