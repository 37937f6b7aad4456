"""`medusa push`: heads onto the Hugging Face Hub."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_decoding.cli.fields import options_of
from medusa_decoding.cli.terminal import note
from medusa_decoding.training.push_config import PushConfig

if TYPE_CHECKING:
    from medusa_decoding.training.push import Pushable, Pushed

HELPS = {
    "private": "Of a repository that is created. Default: as its owner has it.",
    "revision": "Branch to push to; created if it is not there. Default: the main one.",
    "commit_message": "First line of the commit.",
    "base_model": "Hub id of the base model, for the model card, where the training's record has none.",
    "license": "Licence, for the model card. Default: the base model's.",
    "replace_card": "Also where the model card on the Hub was edited by hand.",
}


@options_of(PushConfig, HELPS)
def push(
    heads: Annotated[
        str,
        typer.Argument(metavar="HEADS", help="Folder, packaged heads or Hub id.", show_default=False),
    ],
    repo: Annotated[
        str, typer.Argument(metavar="REPO", help="Where on the Hub: owner/name.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be pushed, and stop; nothing is asked or sent.")
    ] = False,
    **fields: Any,
) -> None:
    """Push heads to the Hugging Face Hub, with a model card made from the record of their training.

    Log in with 'hf auth login' or HF_TOKEN first. Pushed are the heads, their records and their card, and
    nothing else of the folder. Everywhere else REPO then names these heads: --heads owner/name.
    """
    from medusa_decoding.training.push import push as run
    from medusa_decoding.training.push import pushable

    config = PushConfig.of(heads=heads, repo=repo, **fields)
    on_terminal = sys.stderr.isatty()
    found = pushable(config, progress=on_terminal)
    if dry_run:
        print("\n".join(_listed(found, config)))
        return
    note(f"pushing {len(found.files) + 1} files ({_megabytes(found.size)}) to {config.hub_id}")
    _report(run(config, found, progress=on_terminal), found, config)


def _listed(found: Pushable, config: PushConfig) -> list[str]:
    """The files with their sizes, then the model card."""
    card = found.card(found.origin(config))
    how = "made from the records" if found.edited_card is None else "edited by hand, as it is"
    sizes = {name: path.stat().st_size for name, path in found.files.items()}
    files = [f"{_megabytes(size):>10}  {name}" for name, size in sizes.items()]
    return [*files, f"{_megabytes(len(card.encode())):>10}  README.md ({how}):", "", card.rstrip()]


def _report(pushed: Pushed, found: Pushable, config: PushConfig) -> None:
    if found.edited_card is not None and not pushed.kept_card:
        note("README.md went as it is (edited by hand, or made by an older version); delete it for a new one")
    if pushed.kept_card:
        note("the model card on the Hub was edited by hand and stays; --replace-card replaces it")
    if pushed.removed:
        note(f"removed there, as these heads have no such files: {', '.join(pushed.removed)}")
    if found.needs_its_base:
        note(
            "the base model that was trained with these heads is not pushed; push its folder with `hf upload`"
        )
    if not pushed.is_new:
        note(f"{config.hub_id} had all of this already")
    print(pushed.url)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size / 1e3:.2f} kB"
