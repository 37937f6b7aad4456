"""`medusa convert`: heads in the layout of another engine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from medusa_decoding.cli.fields import options_of
from medusa_decoding.cli.terminal import busy, note
from medusa_decoding.export.config import ConvertConfig

HELPS = {
    "to": "The engine it is for, or the layout.",
    "out": "New folder.",
    "base": "Base model, where its weights are needed [default: the one the heads name].",
    "tree": "Tree for engines that verify one: medusa_choices, or a file [default: that of 'medusa tune'].",
    "dtype": "Type of the heads' tensors; auto: as they are stored.",
}


@options_of(ConvertConfig, HELPS)
def convert(
    heads: Annotated[
        str,
        typer.Argument(
            metavar="HEADS",
            help="Medusa heads: an alias, a folder or a Hub id.",
            show_default=False,
        ),
    ],
    **fields: Any,
) -> None:
    """Write Medusa heads so that another engine loads them, with a README.md that says how.

    What the layout cannot hold is printed and stands in the README.
    """
    from medusa_decoding.export.engines import service_of
    from medusa_decoding.export.page import NO_LOSS
    from medusa_decoding.export.run import convert as run
    from medusa_decoding.export.written import megabytes

    config = ConvertConfig.of(heads=heads, **fields)
    with busy(f"writing {config.out} ..."):
        export = run(config, say=note)
    print(f"heads for {service_of(export).engine}: {export.out} ({megabytes(export.size)})")
    for loss in export.losses or (NO_LOSS,):
        print(f"lost: {loss}")
    note(f"how to serve it: {export.out / 'README.md'}")
