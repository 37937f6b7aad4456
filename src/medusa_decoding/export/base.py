"""What an export needs of the base model: its name elsewhere, its output projection, its whole folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig, check_fingerprint
from medusa_decoding.models import ALIASES, Source, load_base_model, resolve
from medusa_decoding.models.checkpoint import Unsupported, open_checkpoint
from medusa_decoding.models.hf_folder import save_base
from medusa_decoding.models.hub import DESCRIPTIONS, WEIGHTS, folder_of
from medusa_decoding.models.llama_weights import EMBEDDING, PROJECTION


def name_elsewhere(base: str | None) -> str | None:
    """What other engines call the base model: an alias' model on the Hub, anything else as it is."""
    alias = ALIASES.get(base or "")
    return alias.hub_id if alias is not None and alias.hub_id is not None else base


def source_of(base: str | None, config: HeadsConfig) -> Source:
    """The base model that is asked for, or the one that the heads name; raises UserError without either."""
    name = base or config.base_model
    if name is None:
        raise UserError("the heads do not say which base model they belong to: give it with --base")
    return resolve(name)


def projection_of(source: Source, config: HeadsConfig) -> tuple[Tensor, Tensor | None]:
    """The base model's lm_head (V, D) in float32, and its bias (V,) if it has one.

    Warns where the heads were trained on other weights.
    """
    try:
        checkpoint = open_checkpoint(source)
    except Unsupported:
        base = load_base_model(source, device="cpu")
        check_fingerprint(config, base.fingerprint)
        output = base.model.get_output_embeddings()
        return output.weight.float(), getattr(output, "bias", None)
    check_fingerprint(config, checkpoint.fingerprint())
    # A copy: what a file holds as float32 is mapped and read-only.
    rows = checkpoint.tensor(PROJECTION if PROJECTION in checkpoint.names else EMBEDDING)
    return torch.from_numpy(rows.copy()), None


def write_base(source: Source, folder: Path) -> None:
    """Write the base model as transformers has it: its own files, or what a GGUF file holds in float32."""
    if source.kind == "gguf":
        base = load_base_model(source, device="cpu", dtype="float32")
        save_base(base.model, base, source, folder)
        return
    origin = folder_of(source, (*DESCRIPTIONS, *WEIGHTS))
    folder.mkdir(exist_ok=True)
    for pattern in (*DESCRIPTIONS, *WEIGHTS):
        for path in filter(Path.is_file, origin.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
