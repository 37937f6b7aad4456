"""A model on the torch engine."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from medusa_decoding.decoding import NoDrafter
from medusa_decoding.engines import PlainEngine, TorchEngine
from medusa_decoding.errors import UserError
from medusa_decoding.generation.medusa import Medusa
from medusa_decoding.generation.packaged import heads_location, heads_name
from medusa_decoding.heads import MedusaDrafter, check_fingerprint, from_pretrained
from medusa_decoding.models import BaseModel, Source, load_base_model


def load_on_torch(
    source: Source,
    heads: str | Path | None,
    device: str,
    dtype: str,
    quantization: Literal["4bit", "8bit"] | None,
    adapter: str | None,
) -> Medusa:
    """Load model and heads; arguments are those of `load`."""
    base = load_base_model(source, device=device, dtype=dtype, quantization=quantization, adapter=adapter)
    engine = _engine(base, wants_heads=heads not in (None, "auto"))
    medusa = Medusa(base.name, base.tokenizer, engine, base.fingerprint, NoDrafter())
    location = heads_location(heads, source, base.fingerprint)
    if location is not None and isinstance(engine, TorchEngine):
        medusa.heads = drafter = torch_drafter(location, base.model, base.fingerprint, engine)
        medusa.drafter = drafter.config.calibrated(drafter)
        medusa.heads_name = heads_name(heads, location)
    return medusa


def _engine(base: BaseModel, wants_heads: bool) -> TorchEngine | PlainEngine:
    try:
        return TorchEngine(base.model, base.context_length)
    except UserError as error:
        if wants_heads:
            raise
        warnings.warn(f"{error} (decoding plainly)", stacklevel=3)
        return PlainEngine(base.model, base.context_length)


def torch_drafter(location: str | Path, model: Any, fingerprint: str, engine: TorchEngine) -> MedusaDrafter:
    """Heads from a folder or the Hub, on the engine's device, sharing the base model's tensors.

    fingerprint: of the base model `model`. Raises UserError where there are no heads or they do not fit.
    """
    heads = from_pretrained(str(location), device=str(engine.device), dtype=engine.dtype)
    output = model.get_output_embeddings()
    heads.bind(output.weight, model.get_input_embeddings().weight, getattr(output, "bias", None))
    check_fingerprint(heads.config, fingerprint)
    heads.eval()
    return MedusaDrafter(heads)
