"""`medusa pull`: download a model."""

from __future__ import annotations

from medusa_decoding.cli.options import Model


def pull(model: Model) -> None:
    """Download a model and print where it is."""
    from medusa_decoding.models import pull as download

    print(download(model))
