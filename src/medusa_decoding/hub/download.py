"""Files of a repository, from the Hub or from the local cache of `huggingface_hub`."""

from __future__ import annotations

import logging as levels
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medusa_decoding.hub.failures import explained
from medusa_decoding.hub.ids import HubId


def snapshot(hub_id: HubId, patterns: Sequence[str], *, progress: bool = False) -> Path:
    """The folder with those files that match one of `patterns`; only what the cache lacks is downloaded.

    A connection that breaks is taken up where it broke; after a kill, files that are whole stay. Without a
    network, or with HF_HUB_OFFLINE=1, the cache must do. Raises UserError where the repository or the
    revision is not there, or cannot be reached and is not in the cache.
    """
    from huggingface_hub import snapshot_download

    with explained(str(hub_id)), quietly(progress=progress):
        return Path(snapshot_download(hub_id.repo, revision=hub_id.revision, allow_patterns=list(patterns)))


@contextmanager
def quietly(*, progress: bool) -> Iterator[None]:
    """Keep what `huggingface_hub` logs to itself, and its progress bars unless `progress`."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before, had_bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity(levels.ERROR)
    if had_bars and not progress:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if had_bars and not progress:
            enable_progress_bars()
