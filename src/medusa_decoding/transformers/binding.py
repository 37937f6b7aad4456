"""From a user's model object to the parts of the loop, without a copy of its weights."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medusa_decoding.decoding import Drafter, LookupDrafter, NoDrafter, Planner, StaticPlanner
from medusa_decoding.engines import TorchEngine
from medusa_decoding.engines.support import NoTrees
from medusa_decoding.errors import UserError
from medusa_decoding.generation.on_torch import torch_drafter
from medusa_decoding.generation.packaged import heads_location
from medusa_decoding.generation.rules import Draft, unmeasured_planner
from medusa_decoding.models import Source
from medusa_decoding.models.fingerprint import fingerprint

NO_HEADS = (
    "no heads for these weights come with this package: give medusa_generate(heads=...) their folder or"
    " Hub id, or heads=None for prompt lookup alone"
)


@dataclass(frozen=True)
class Binding:
    """One model's engine and who guesses for it; see `Decoder`."""

    engine: TorchEngine
    drafter: Drafter
    lookup: LookupDrafter | None
    planner: Planner


def bind(model: Any, heads: str | Path | None, draft: Draft, planner: Planner | None) -> Binding:
    """The parts for `model`, a causal LM of transformers; other arguments are those of `medusa_generate`.

    Raises UserError where the model cannot verify trees, or heads are not found or do not fit it.
    """
    engine = _engine(model)
    drafter: Drafter = NoDrafter()
    if has_heads := heads is not None and draft in ("both", "heads"):
        digits = fingerprint(model)
        # A model object does not tell the alias it was loaded by; its weights find their heads all the same.
        location = heads_location(heads, Source("folder", str(model.name_or_path)), digits)
        if location is None:
            raise UserError(NO_HEADS)
        found = torch_drafter(location, model, digits, engine)
        drafter = found.config.calibrated(found)
    # A static tree has places for the guesses of heads only.
    looks_up = draft in ("both", "lookup") and not isinstance(planner, StaticPlanner)
    return Binding(
        engine, drafter, LookupDrafter() if looks_up else None, planner or unmeasured_planner(has_heads)
    )


def weights_of(model: Any) -> Hashable:
    """What a binding goes by: it must be made anew when a model has moved, changed its type or its
    attention.
    """
    weight = model.get_input_embeddings().weight
    attention = getattr(model.config, "_attn_implementation", None)
    return id(model), weight.data_ptr(), weight.shape, weight.dtype, weight.device, attention


def _engine(model: Any) -> TorchEngine:
    try:
        return TorchEngine(model)
    except NoTrees as error:
        raise UserError(f"{error.fault}: leave custom_generate out") from None
