"""`medusa convert`: heads in the layout of another engine, or a base model as a folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from medusa_decoding.cli.fields import options_of
from medusa_decoding.cli.terminal import busy, note
from medusa_decoding.export.config import ConvertConfig

HELPS = {
    "to": "The engine it is for, or the layout; hf: the base model HEADS as a Hugging Face folder.",
    "out": "New folder.",
    "base": "Base model, where its weights are needed [default: the one the heads name].",
    "tree": "Tree for engines that verify one: medusa_choices, or a file [default: that of 'medusa tune'].",
    "dtype": "Type of the tensors; auto: as they are stored, float32 for a GGUF file's weights.",
}


@options_of(ConvertConfig, HELPS)
def convert(
    heads: Annotated[
        str,
        typer.Argument(
            metavar="HEADS",
            help="Medusa heads: an alias, a folder or a Hub id; with --to hf, a base model.",
            show_default=False,
        ),
    ],
    **fields: Any,
) -> None:
    """Write Medusa heads so that another engine loads them, with a README.md that says how.

    What the layout cannot hold is printed and stands in the README. With --to hf: write the base model itself
    (an alias, a GGUF file, a folder or a Hub id) so that transformers and other engines load it.
    """
    from medusa_decoding.export.engines import service_of
    from medusa_decoding.export.page import NO_LOSS
    from medusa_decoding.export.run import convert as run
    from medusa_decoding.export.whole import convert_model
    from medusa_decoding.export.written import Export, megabytes

    config = ConvertConfig.of(heads=heads, **fields)
    with busy(f"writing {config.out} ..."):
        export = convert_model(config, say=note) if config.to == "hf" else run(config, say=note)
    what = f"heads for {service_of(export).engine}" if isinstance(export, Export) else f"model {heads}"
    print(f"{what}: {export.out} ({megabytes(export.size)})")
    for loss in export.losses or (NO_LOSS,):
        print(f"lost: {loss}")
    note(f"how to serve it: {export.out / 'README.md'}")
