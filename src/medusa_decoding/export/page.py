"""The README.md of an export."""

from __future__ import annotations

from pathlib import Path

from medusa_decoding.export.engines import service_of
from medusa_decoding.export.written import Export

NO_LOSS = "nothing"


def page(export: Export) -> str:
    """How the export is served, what the engine does with it, what is lost, and its base model."""
    service, given = service_of(export), export.given
    return "\n".join(
        [
            f"# Medusa heads for {service.engine}",
            "",
            f"{given.num_heads} heads of {given.num_layers} residual block(s) each, written from"
            f" `{Path(export.name).name}` by `medusa convert --to {export.to}`. The base model checks every"
            " guess.",
            "",
            "## Serve",
            "```sh",
            *service.commands,
            "```",
            "",
            "## What the engine does with them",
            *(f"- {line}" for line in service.does),
            "",
            "## What is lost in this layout",
            *(f"- {line}" for line in export.losses or (NO_LOSS,)),
            "",
            "## Base model",
            _base(export),
            "",
        ]
    )


def _base(export: Export) -> str:
    if export.to == "full":
        return "In this folder."
    if export.base is None:
        return "Unknown: the heads do not say."
    known = f"`{Path(export.base).name if Path(export.base).exists() else export.base}`."
    if export.file is None:
        return known
    return (
        f"{known} The heads were trained on a quantised file of it, `{export.file}`, which"
        f" `medusa convert {export.file} --to hf` writes as a folder that the engine loads. On the original"
        " weights a few more guesses may be refused."
    )
